#compdef nvidia-driver driverctr

# Generated from src/driverctr/parser.py by `./dev docs`, with shtab.


_shtab_nvidia_driver_commands() {
  local _commands=(
    build:'build the modules for a kernel, and do nothing else'
    doctor:'print every check that init makes before it begins'
    explain:'print what an exit status or code means and what to do about it'
    history:'print what starts took and how they ended'
    init:'bring the driver up (building modules if need be), keep it, take it down on a signal'
    load:'the same with modules on disk only'
    plan:'print what is true, what init would do about it, and how long that takes'
    probe_nvidia_peermem:'exit 1 if nvidia-peermem should be loaded and is not'
    reload_nvidia_peermem:'load nvidia-peermem once MOFED'"'"'s and our driver are ready, and stay'
    status:'print what is so'
    store:'list, verify, prune, export, import and push modules built before'
    unload:'take away what a driver container that is no more has left'
    update:'have the modules for a kernel before it boots, beside a driver that serves'
    who:'print who uses the driver, and what to do about each'
  )
  _describe 'nvidia-driver commands' _commands
}

_shtab_nvidia_driver_store_commands() {
  local _commands=(
    export:'write entries to one file, for nodes that reach neither packages nor a server'
    import:'take the entries of a file into the store. They are code for the kernel, checked against damage only: whoever imports a file vouches for where it comes from'
    keygen:'make the keys of a remote folder: one for `store push`, one for REMOTE_PUBLIC_KEY'
    list:'print the entries, the last used first'
    prune:'give up damaged entries set aside, and what was used least recently; what runs, ran last or is to run stays'
    push:'sign entries, and send them to a folder, or by HTTP PUT to an address'
    verify:'compare every file with its manifest; what is damaged is set aside, and built anew when needed'
    why:'print whether the modules wanted here are in the store, or what keeps the nearest from it'
  )
  _describe 'nvidia-driver store commands' _commands
}

_shtab_nvidia_driver_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_defaults_added=0

_shtab_nvidia_driver_build_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  {-a,--accept-license}"[accepted for compatibility\; no effect]"
  {-m,--max-threads}"[most jobs of a build]:N:"
  {-k,--kernel}"[default\: the running kernel\'s]:RELEASE:"
  {-o,--output}"[default\: MODULES_DIR]:DIR:_files -/"
  {-t,--tag}"[accepted for compatibility\; no effect]:TAG:"
  "--modules[compile nothing\: take these, which were made (and signed) elsewhere]:DIR:_files -/"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_build_defaults_added=0

_shtab_nvidia_driver_doctor_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  "--json[for programs]"
  "--bundle[write a .tar.gz for a bug report\: settings without secrets, checks, plan, status, history, logs, modules, PCI and packages\; - for standard output]:FILE:"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_doctor_defaults_added=0

_shtab_nvidia_driver_explain_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  ":a code or an exit status\; default\: all:(bad-usage 2 bad-setting 3 already-running 4 no-privilege 5 in-use 6 not-shared 7 no-module-support 8 signature-needed 9 no-modules 10 headers-missing 11 compiler-missing 12 build-failed 13 packages-failed 14 no-space 15 no-memory 16 no-gpu 17 gpu-legacy 18 gpu-too-new 19 load-failed 20 unload-failed 21 mount-failed 22 firmware-failed 23 device-nodes-failed 24 daemon-failed 25 wrong-module-type 26 gpu-taken 27 host-driver 28 fabric-manager-missing 29 not-ready 30 gpu-init-failed 31 node-file 32 command-failed 33 gpu-lost 34 stuck 35 no-device 36 unknown-symbol 37 wrong-kernel 38 key-rejected 39 bad-parameter 40 other-version 41 wrong-architecture 42 store-unusable 43 remote-failed 44 signature-invalid 45 packages-untrusted 46 bug 70)"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_explain_defaults_added=0

_shtab_nvidia_driver_history_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  "--json[for programs]"
  "--all[every start on record\; default\: the last 20]"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_history_defaults_added=0

_shtab_nvidia_driver_init_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  {-a,--accept-license}"[accepted for compatibility\; no effect]"
  {-m,--max-threads}"[most jobs of a build]:N:"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_init_defaults_added=0

_shtab_nvidia_driver_load_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  {-a,--accept-license}"[accepted for compatibility\; no effect]"
  {-m,--max-threads}"[most jobs of a build]:N:"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_load_defaults_added=0

_shtab_nvidia_driver_plan_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  "--json[for programs]"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_plan_defaults_added=0

_shtab_nvidia_driver_probe_nvidia_peermem_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_probe_nvidia_peermem_defaults_added=0

_shtab_nvidia_driver_reload_nvidia_peermem_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_reload_nvidia_peermem_defaults_added=0

_shtab_nvidia_driver_status_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  "--json[for programs]"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_status_defaults_added=0

_shtab_nvidia_driver_store_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_store_defaults_added=0

_shtab_nvidia_driver_store_export_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  {-k,--kernel}"[of this kernel release]:RELEASE:"
  "(*)::as \`store list\` shows them\; default\: all:"
  ":FILE:_files"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_store_export_defaults_added=0

_shtab_nvidia_driver_store_import_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  ":FILE:_files"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_store_import_defaults_added=0

_shtab_nvidia_driver_store_keygen_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  ":gets private.pem and public.pem:_files -/"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_store_keygen_defaults_added=0

_shtab_nvidia_driver_store_list_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  "--json[for programs]"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_store_list_defaults_added=0

_shtab_nvidia_driver_store_prune_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  "--max-size[such as 2G\; default\: STORE_MAX_SIZE]:SIZE:"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_store_prune_defaults_added=0

_shtab_nvidia_driver_store_push_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  "--to[default\: REMOTE_URL]:FOLDER|URL:"
  "--private-key[PEM file, mode 0600]:FILE:_files"
  {-k,--kernel}"[of this kernel release]:RELEASE:"
  "(*)::as \`store list\` shows them\; default\: all:"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_store_push_defaults_added=0

_shtab_nvidia_driver_store_verify_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_store_verify_defaults_added=0

_shtab_nvidia_driver_store_why_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  {-k,--kernel}"[of this kernel release]:RELEASE:"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_store_why_defaults_added=0

_shtab_nvidia_driver_unload_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_unload_defaults_added=0

_shtab_nvidia_driver_update_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  {-k,--kernel}"[default\: the newest one installed on the host that has not run (latest)]:RELEASE:"
  {-m,--max-threads}"[most jobs of a build\; default\: half of the processors]:N:"
  {-s,--sign}"[refused\: modules are not signed yet]:KEYID:"
  {-t,--tag}"[accepted for compatibility\; no effect]:TAG:"
  "--like-running[with the settings of the driver container that runs, as the hook does]"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_update_defaults_added=0

_shtab_nvidia_driver_who_options=(
  "(- : *)"{-h,--help}"[show this help message and exit]"
  "--json[for programs]"
)

# guard to ensure default positional specs are added only once per session
_shtab_nvidia_driver_who_defaults_added=0


_shtab_nvidia_driver() {
  local context state line curcontext="$curcontext" one_or_more='(*)' remainder='(-)*:' default='*::: :->nvidia-driver'

  # Add default positional/remainder specs only if none exist, and only once per session
  if (( ! _shtab_nvidia_driver_defaults_added )); then
    if (( ${_shtab_nvidia_driver_options[(I)${(q)one_or_more}*]} +          ${_shtab_nvidia_driver_options[(I)${(q)remainder}*]} +          ${_shtab_nvidia_driver_options[(I)${(q)default}]} == 0 )); then
      _shtab_nvidia_driver_options+=(': :_shtab_nvidia_driver_commands' '*::: :->nvidia-driver')
    fi
    _shtab_nvidia_driver_defaults_added=1
  fi
  _arguments -C -s $_shtab_nvidia_driver_options

  case $state in
    nvidia-driver)
      words=($line[1] "${words[@]}")
      (( CURRENT += 1 ))
      curcontext="${curcontext%:*:*}:_shtab_nvidia_driver-$line[1]:"
      case $line[1] in
        build) _arguments -C -s $_shtab_nvidia_driver_build_options ;;
        doctor) _arguments -C -s $_shtab_nvidia_driver_doctor_options ;;
        explain) _arguments -C -s $_shtab_nvidia_driver_explain_options ;;
        history) _arguments -C -s $_shtab_nvidia_driver_history_options ;;
        init) _arguments -C -s $_shtab_nvidia_driver_init_options ;;
        load) _arguments -C -s $_shtab_nvidia_driver_load_options ;;
        plan) _arguments -C -s $_shtab_nvidia_driver_plan_options ;;
        probe_nvidia_peermem) _arguments -C -s $_shtab_nvidia_driver_probe_nvidia_peermem_options ;;
        reload_nvidia_peermem) _arguments -C -s $_shtab_nvidia_driver_reload_nvidia_peermem_options ;;
        status) _arguments -C -s $_shtab_nvidia_driver_status_options ;;
        store) _shtab_nvidia_driver_store ;;
        unload) _arguments -C -s $_shtab_nvidia_driver_unload_options ;;
        update) _arguments -C -s $_shtab_nvidia_driver_update_options ;;
        who) _arguments -C -s $_shtab_nvidia_driver_who_options ;;
      esac
  esac
}

_shtab_nvidia_driver_store() {
  local context state line curcontext="$curcontext" one_or_more='(*)' remainder='(-)*:' default='*::: :->store'

  # Add default positional/remainder specs only if none exist, and only once per session
  if (( ! _shtab_nvidia_driver_store_defaults_added )); then
    if (( ${_shtab_nvidia_driver_store_options[(I)${(q)one_or_more}*]} +          ${_shtab_nvidia_driver_store_options[(I)${(q)remainder}*]} +          ${_shtab_nvidia_driver_store_options[(I)${(q)default}]} == 0 )); then
      _shtab_nvidia_driver_store_options+=(': :_shtab_nvidia_driver_store_commands' '*::: :->store')
    fi
    _shtab_nvidia_driver_store_defaults_added=1
  fi
  _arguments -C -s $_shtab_nvidia_driver_store_options

  case $state in
    store)
      words=($line[1] "${words[@]}")
      (( CURRENT += 1 ))
      curcontext="${curcontext%:*:*}:_shtab_nvidia_driver_store-$line[1]:"
      case $line[1] in
        export) _arguments -C -s $_shtab_nvidia_driver_store_export_options ;;
        import) _arguments -C -s $_shtab_nvidia_driver_store_import_options ;;
        keygen) _arguments -C -s $_shtab_nvidia_driver_store_keygen_options ;;
        list) _arguments -C -s $_shtab_nvidia_driver_store_list_options ;;
        prune) _arguments -C -s $_shtab_nvidia_driver_store_prune_options ;;
        push) _arguments -C -s $_shtab_nvidia_driver_store_push_options ;;
        verify) _arguments -C -s $_shtab_nvidia_driver_store_verify_options ;;
        why) _arguments -C -s $_shtab_nvidia_driver_store_why_options ;;
      esac
  esac
}



typeset -A opt_args

if [[ $zsh_eval_context[-1] == eval ]]; then
  # eval/source/. command, register function for later
  compdef _shtab_nvidia_driver -N nvidia-driver
else
  # autoload from fpath, call function directly
  _shtab_nvidia_driver "$@"
fi
