# Generated from src/driverctr/parser.py by `./dev docs`, with shtab.

_shtab_nvidia_driver_store_subparsers=(list verify why prune export import push keygen)
_shtab_nvidia_driver_subparsers=(init load build update plan status who doctor history explain unload store reload_nvidia_peermem probe_nvidia_peermem)

_shtab_nvidia_driver_init_option_strings=(-h --help -a --accept-license -m --max-threads)
_shtab_nvidia_driver_load_option_strings=(-h --help -a --accept-license -m --max-threads)
_shtab_nvidia_driver_build_option_strings=(-h --help -a --accept-license -m --max-threads -k --kernel -o --output -t --tag --modules)
_shtab_nvidia_driver_update_option_strings=(-h --help -k --kernel -m --max-threads -s --sign -t --tag --like-running)
_shtab_nvidia_driver_plan_option_strings=(-h --help --json)
_shtab_nvidia_driver_status_option_strings=(-h --help --json)
_shtab_nvidia_driver_who_option_strings=(-h --help --json)
_shtab_nvidia_driver_doctor_option_strings=(-h --help --json --bundle)
_shtab_nvidia_driver_history_option_strings=(-h --help --json --all)
_shtab_nvidia_driver_explain_option_strings=(-h --help)
_shtab_nvidia_driver_unload_option_strings=(-h --help)
_shtab_nvidia_driver_store_list_option_strings=(-h --help --json)
_shtab_nvidia_driver_store_verify_option_strings=(-h --help)
_shtab_nvidia_driver_store_why_option_strings=(-h --help -k --kernel)
_shtab_nvidia_driver_store_prune_option_strings=(-h --help --max-size)
_shtab_nvidia_driver_store_export_option_strings=(-h --help -k --kernel)
_shtab_nvidia_driver_store_import_option_strings=(-h --help)
_shtab_nvidia_driver_store_push_option_strings=(-h --help --to --private-key -k --kernel)
_shtab_nvidia_driver_store_keygen_option_strings=(-h --help)
_shtab_nvidia_driver_store_option_strings=(-h --help)
_shtab_nvidia_driver_reload_nvidia_peermem_option_strings=(-h --help)
_shtab_nvidia_driver_probe_nvidia_peermem_option_strings=(-h --help)
_shtab_nvidia_driver_option_strings=(-h --help)

_shtab_nvidia_driver_build__o_COMPGEN=_shtab_compgen_dirs
_shtab_nvidia_driver_build___output_COMPGEN=_shtab_compgen_dirs
_shtab_nvidia_driver_build___modules_COMPGEN=_shtab_compgen_dirs
_shtab_nvidia_driver_store_export_pos_1_COMPGEN=_shtab_compgen_files
_shtab_nvidia_driver_store_import_pos_0_COMPGEN=_shtab_compgen_files
_shtab_nvidia_driver_store_push___private_key_COMPGEN=_shtab_compgen_files
_shtab_nvidia_driver_store_keygen_pos_0_COMPGEN=_shtab_compgen_dirs

_shtab_nvidia_driver_explain_pos_0_choices=(bad-usage 2 bad-setting 3 already-running 4 no-privilege 5 in-use 6 not-shared 7 no-module-support 8 signature-needed 9 no-modules 10 headers-missing 11 compiler-missing 12 build-failed 13 packages-failed 14 no-space 15 no-memory 16 no-gpu 17 gpu-legacy 18 gpu-too-new 19 load-failed 20 unload-failed 21 mount-failed 22 firmware-failed 23 device-nodes-failed 24 daemon-failed 25 wrong-module-type 26 gpu-taken 27 host-driver 28 fabric-manager-missing 29 not-ready 30 gpu-init-failed 31 node-file 32 command-failed 33 gpu-lost 34 stuck 35 no-device 36 unknown-symbol 37 wrong-kernel 38 key-rejected 39 bad-parameter 40 other-version 41 wrong-architecture 42 store-unusable 43 remote-failed 44 signature-invalid 45 packages-untrusted 46 bug 70)
_shtab_nvidia_driver_store_pos_0_choices=(list verify why prune export import push keygen)
_shtab_nvidia_driver_pos_0_choices=(init load build update plan status who doctor history explain unload store reload_nvidia_peermem probe_nvidia_peermem)

_shtab_nvidia_driver_init__h_nargs=0
_shtab_nvidia_driver_init___help_nargs=0
_shtab_nvidia_driver_init__a_nargs=0
_shtab_nvidia_driver_init___accept_license_nargs=0
_shtab_nvidia_driver_load__h_nargs=0
_shtab_nvidia_driver_load___help_nargs=0
_shtab_nvidia_driver_load__a_nargs=0
_shtab_nvidia_driver_load___accept_license_nargs=0
_shtab_nvidia_driver_build__h_nargs=0
_shtab_nvidia_driver_build___help_nargs=0
_shtab_nvidia_driver_build__a_nargs=0
_shtab_nvidia_driver_build___accept_license_nargs=0
_shtab_nvidia_driver_update__h_nargs=0
_shtab_nvidia_driver_update___help_nargs=0
_shtab_nvidia_driver_update___like_running_nargs=0
_shtab_nvidia_driver_plan__h_nargs=0
_shtab_nvidia_driver_plan___help_nargs=0
_shtab_nvidia_driver_plan___json_nargs=0
_shtab_nvidia_driver_status__h_nargs=0
_shtab_nvidia_driver_status___help_nargs=0
_shtab_nvidia_driver_status___json_nargs=0
_shtab_nvidia_driver_who__h_nargs=0
_shtab_nvidia_driver_who___help_nargs=0
_shtab_nvidia_driver_who___json_nargs=0
_shtab_nvidia_driver_doctor__h_nargs=0
_shtab_nvidia_driver_doctor___help_nargs=0
_shtab_nvidia_driver_doctor___json_nargs=0
_shtab_nvidia_driver_history__h_nargs=0
_shtab_nvidia_driver_history___help_nargs=0
_shtab_nvidia_driver_history___json_nargs=0
_shtab_nvidia_driver_history___all_nargs=0
_shtab_nvidia_driver_explain__h_nargs=0
_shtab_nvidia_driver_explain___help_nargs=0
_shtab_nvidia_driver_unload__h_nargs=0
_shtab_nvidia_driver_unload___help_nargs=0
_shtab_nvidia_driver_store_list__h_nargs=0
_shtab_nvidia_driver_store_list___help_nargs=0
_shtab_nvidia_driver_store_list___json_nargs=0
_shtab_nvidia_driver_store_verify__h_nargs=0
_shtab_nvidia_driver_store_verify___help_nargs=0
_shtab_nvidia_driver_store_why__h_nargs=0
_shtab_nvidia_driver_store_why___help_nargs=0
_shtab_nvidia_driver_store_prune__h_nargs=0
_shtab_nvidia_driver_store_prune___help_nargs=0
_shtab_nvidia_driver_store_export_pos_0_nargs='*'
_shtab_nvidia_driver_store_export__h_nargs=0
_shtab_nvidia_driver_store_export___help_nargs=0
_shtab_nvidia_driver_store_import__h_nargs=0
_shtab_nvidia_driver_store_import___help_nargs=0
_shtab_nvidia_driver_store_push_pos_0_nargs='*'
_shtab_nvidia_driver_store_push__h_nargs=0
_shtab_nvidia_driver_store_push___help_nargs=0
_shtab_nvidia_driver_store_keygen__h_nargs=0
_shtab_nvidia_driver_store_keygen___help_nargs=0
_shtab_nvidia_driver_store_pos_0_nargs=A...
_shtab_nvidia_driver_store__h_nargs=0
_shtab_nvidia_driver_store___help_nargs=0
_shtab_nvidia_driver_reload_nvidia_peermem__h_nargs=0
_shtab_nvidia_driver_reload_nvidia_peermem___help_nargs=0
_shtab_nvidia_driver_probe_nvidia_peermem__h_nargs=0
_shtab_nvidia_driver_probe_nvidia_peermem___help_nargs=0
_shtab_nvidia_driver_pos_0_nargs=A...
_shtab_nvidia_driver__h_nargs=0
_shtab_nvidia_driver___help_nargs=0


# $1=COMP_WORDS[1]
_shtab_compgen_files() {
  compgen -f -- $1  # files
}

# $1=COMP_WORDS[1]
_shtab_compgen_dirs() {
  compgen -d -- $1  # recurse into subdirs
}

# $1=COMP_WORDS[1]
_shtab_replace_nonword() {
  echo "${1//[^[:word:]]/_}"
}

# set default values (called for the initial parser & any subparsers)
_set_parser_defaults() {
  local subparsers_var="${prefix}_subparsers[@]"
  sub_parsers=${!subparsers_var-}

  local current_option_strings_var="${prefix}_option_strings[@]"
  current_option_strings=${!current_option_strings_var}

  completed_positional_actions=0

  _set_new_action "pos_$completed_positional_actions" true
}

# $1=action identifier
# $2=positional action (bool)
# set all identifiers for an action's parameters
_set_new_action() {
  current_action="${prefix}_$(_shtab_replace_nonword $1)"

  local current_action_compgen_var=${current_action}_COMPGEN
  current_action_compgen="${!current_action_compgen_var-}"

  local current_action_choices_var="${current_action}_choices[@]"
  current_action_choices="${!current_action_choices_var-}"

  local current_action_nargs_var="${current_action}_nargs"
  if [ -n "${!current_action_nargs_var-}" ]; then
    current_action_nargs="${!current_action_nargs_var}"
  else
    current_action_nargs=1
  fi

  current_action_args_start_index=$(( $word_index + 1 - $pos_only ))

  current_action_is_positional=$2
}

# Notes:
# `COMPREPLY`: what will be rendered after completion is triggered
# `completing_word`: currently typed word to generate completions for
# `${!var}`: evaluates the content of `var` and expand its content as a variable
#     hello="world"
#     x="hello"
#     ${!x} -> ${hello} -> "world"
_shtab_nvidia_driver() {
  local completing_word="${COMP_WORDS[COMP_CWORD]}"
  local previous_word="${COMP_WORDS[COMP_CWORD-1]}"
  local completed_positional_actions
  local current_action
  local current_action_args_start_index
  local current_action_choices
  local current_action_compgen
  local current_action_is_positional
  local current_action_nargs
  local current_option_strings
  local sub_parsers
  COMPREPLY=()

  local prefix=_shtab_nvidia_driver
  local word_index=0
  local pos_only=0 # "--" delimiter not encountered yet
  _set_parser_defaults
  word_index=1

  # determine what arguments are appropriate for the current state
  # of the arg parser
  while [ $word_index -ne $COMP_CWORD ]; do
    local this_word="${COMP_WORDS[$word_index]}"

    if [[ $pos_only = 1 || " $this_word " != " -- " ]]; then
      if [[ -n $sub_parsers && " ${sub_parsers[@]} " == *" $this_word "* ]]; then
        # valid subcommand: add it to the prefix & reset the current action
        prefix="${prefix}_$(_shtab_replace_nonword $this_word)"
        _set_parser_defaults
      fi

      if [[ " ${current_option_strings[@]} " == *" $this_word "* ]]; then
        # a new action should be acquired (due to recognised option string or
        # no more input expected from current action);
        # the next positional action can fill in here
        _set_new_action $this_word false
      fi

      if [[ "$current_action_nargs" != "*" ]] && \
         [[ "$current_action_nargs" != "+" ]] && \
         [[ "$current_action_nargs" != "?" ]] && \
         [[ "$current_action_nargs" != *"..." ]] && \
         (( $word_index + 1 - $current_action_args_start_index - $pos_only >= \
            $current_action_nargs )); then
        $current_action_is_positional && let "completed_positional_actions += 1"
        _set_new_action "pos_$completed_positional_actions" true
      fi
    else
      pos_only=1 # "--" delimiter encountered
    fi

    let "word_index+=1"
  done

  # Generate the completions

  COMPREPLY=()
  if [[ $pos_only = 0 && "$completing_word" == -* &&
        ( -z "$current_action_compgen" || "$current_action_is_positional" = true ) ]]; then
    # optional argument started: use option strings
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(
      compgen -W "${current_option_strings[*]}" -- "$completing_word")
  elif [[ "$previous_word" =~ ^[0-9\&]*[\<\>]\>?$ ]]; then
    # handle redirection operators
    compopt -o filenames 2>/dev/null || : # bash>=4
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$completing_word")
  else
    # use choices & compgen
    local action_compgen_word="$completing_word"
    # handle tab-completing in the middle of a line (#248 <- #116)
    [[ -n "$current_action_compgen" && "$completing_word" == -* ]] && action_compgen_word=""
    [ -n "$current_action_compgen" ] && {
      [[ "$current_action_compgen" =~ _(file|dir|glob|FILE|DIR|GLOB)|File|Dir|Glob ]] &&
        compopt -o filenames 2>/dev/null || : # bash>=4
      while IFS= read -r line; do COMPREPLY+=("$line"); done < <(
        "$current_action_compgen" "$action_compgen_word")
    }
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(
      compgen -W "${current_action_choices[*]}" -- "$completing_word")
  fi

  if [[ ${#COMPREPLY[@]} = 0 ]]; then
    # native fallback matches are not necessarily filenames (e.g. variables)
    compopt +o filenames 2>/dev/null || : # bash>=4
  fi

  return 0
}

complete -o bashdefault -F _shtab_nvidia_driver nvidia-driver
complete -o bashdefault -F _shtab_nvidia_driver driverctr
