# Generated from src/driverctr/parser.py by `./dev docs`, with shtab.


# Parse current commandline:
# - _shtab_nvidia_driver_cmdpath=(sub)command path seen so far
# - _shtab_nvidia_driver_npos=number of positional arguments given after it
# - options are skipped based on _shtab_nvidia_driver_opts_with_value & _shtab_nvidia_driver_commands lists
function _shtab_nvidia_driver_scan
  set -g _shtab_nvidia_driver_cmdpath ''
  set -g _shtab_nvidia_driver_npos 0
  set -l tokens (commandline -opc)
  set -e tokens[1]
  set -l expect_value 0
  for t in $tokens
    if test $expect_value -eq 1
      set expect_value 0
      continue
    end
    switch "$t"
      case '--*=*'
        continue
      case '-*'
        if contains -- $t $_shtab_nvidia_driver_opts_with_value
          set expect_value 1
        end
        continue
      case '*'
        if test $_shtab_nvidia_driver_npos -eq 0
          set -l candidate $t
          if test -n "$_shtab_nvidia_driver_cmdpath"
            set candidate "$_shtab_nvidia_driver_cmdpath $t"
          end
          if contains -- $candidate $_shtab_nvidia_driver_commands
            set -g _shtab_nvidia_driver_cmdpath $candidate
            continue
          end
        end
        set -g _shtab_nvidia_driver_npos (math $_shtab_nvidia_driver_npos + 1)
    end
  end
end

# Condition helper: true if the current (sub)command path equals the given one.
function _shtab_nvidia_driver_using
  _shtab_nvidia_driver_scan
  test "$_shtab_nvidia_driver_cmdpath" = "$argv"
end

set -g _shtab_nvidia_driver_commands init load build update plan status who doctor history explain unload store 'store list' 'store verify' 'store why' 'store prune' 'store export' 'store import' 'store push' 'store keygen' reload_nvidia_peermem probe_nvidia_peermem
set -g _shtab_nvidia_driver_opts_with_value --bundle --kernel --max-size --max-threads --modules --output --private-key --sign --tag --to -k -m -o -s -t

complete -c nvidia-driver -e
complete -c nvidia-driver -f

complete -c nvidia-driver -n _shtab_nvidia_driver_using -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using; and test $_shtab_nvidia_driver_npos -eq 0' -a init -d 'bring the driver up (building modules if need be), keep it, take it down on a signal'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using init' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using init' -s a -l accept-license -d 'accepted for compatibility; no effect'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using init' -s m -l max-threads -x -d 'most jobs of a build'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using; and test $_shtab_nvidia_driver_npos -eq 0' -a load -d 'the same with modules on disk only'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using load' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using load' -s a -l accept-license -d 'accepted for compatibility; no effect'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using load' -s m -l max-threads -x -d 'most jobs of a build'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using; and test $_shtab_nvidia_driver_npos -eq 0' -a build -d 'build the modules for a kernel, and do nothing else'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using build' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using build' -s a -l accept-license -d 'accepted for compatibility; no effect'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using build' -s m -l max-threads -x -d 'most jobs of a build'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using build' -s k -l kernel -x -d 'default: the running kernel'"'"'s'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using build' -s o -l output -xka "(__fish_complete_directories)" -d 'default: MODULES_DIR'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using build' -s t -l tag -x -d 'accepted for compatibility; no effect'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using build' -l modules -xka "(__fish_complete_directories)" -d 'compile nothing: take these, which were made (and signed) elsewhere'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using; and test $_shtab_nvidia_driver_npos -eq 0' -a update -d 'have the modules for a kernel before it boots, beside a driver that serves'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using update' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using update' -s k -l kernel -x -d 'default: the newest one installed on the host that has not run (latest)'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using update' -s m -l max-threads -x -d 'most jobs of a build; default: half of the processors'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using update' -s s -l sign -x -d 'refused: modules are not signed yet'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using update' -s t -l tag -x -d 'accepted for compatibility; no effect'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using update' -l like-running -d 'with the settings of the driver container that runs, as the hook does'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using; and test $_shtab_nvidia_driver_npos -eq 0' -a plan -d 'print what is true, what init would do about it, and how long that takes'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using plan' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using plan' -l json -d 'for programs'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using; and test $_shtab_nvidia_driver_npos -eq 0' -a status -d 'print what is so'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using status' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using status' -l json -d 'for programs'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using; and test $_shtab_nvidia_driver_npos -eq 0' -a who -d 'print who uses the driver, and what to do about each'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using who' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using who' -l json -d 'for programs'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using; and test $_shtab_nvidia_driver_npos -eq 0' -a doctor -d 'print every check that init makes before it begins'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using doctor' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using doctor' -l json -d 'for programs'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using doctor' -l bundle -x -d 'write a .tar.gz for a bug report: settings without secrets, checks, plan, status, history, logs, modules, PCI and packages; - for standard output'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using; and test $_shtab_nvidia_driver_npos -eq 0' -a history -d 'print what starts took and how they ended'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using history' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using history' -l json -d 'for programs'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using history' -l all -d 'every start on record; default: the last 20'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using; and test $_shtab_nvidia_driver_npos -eq 0' -a explain -d 'print what an exit status or code means and what to do about it'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using explain' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using explain; and test $_shtab_nvidia_driver_npos -eq 0' -ka "bad-usage 2 bad-setting 3 already-running 4 no-privilege 5 in-use 6 not-shared 7 no-module-support 8 signature-needed 9 no-modules 10 headers-missing 11 compiler-missing 12 build-failed 13 packages-failed 14 no-space 15 no-memory 16 no-gpu 17 gpu-legacy 18 gpu-too-new 19 load-failed 20 unload-failed 21 mount-failed 22 firmware-failed 23 device-nodes-failed 24 daemon-failed 25 wrong-module-type 26 gpu-taken 27 host-driver 28 fabric-manager-missing 29 not-ready 30 gpu-init-failed 31 node-file 32 command-failed 33 gpu-lost 34 stuck 35 no-device 36 unknown-symbol 37 wrong-kernel 38 key-rejected 39 bad-parameter 40 other-version 41 wrong-architecture 42 store-unusable 43 remote-failed 44 signature-invalid 45 packages-untrusted 46 bug 70" -d 'a code or an exit status; default: all'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using; and test $_shtab_nvidia_driver_npos -eq 0' -a unload -d 'take away what a driver container that is no more has left'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using unload' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using; and test $_shtab_nvidia_driver_npos -eq 0' -a store -d 'list, verify, prune, export, import and push modules built before'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store; and test $_shtab_nvidia_driver_npos -eq 0' -a list -d 'print the entries, the last used first'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store list' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store list' -l json -d 'for programs'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store; and test $_shtab_nvidia_driver_npos -eq 0' -a verify -d 'compare every file with its manifest; what is damaged is set aside, and built anew when needed'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store verify' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store; and test $_shtab_nvidia_driver_npos -eq 0' -a why -d 'print whether the modules wanted here are in the store, or what keeps the nearest from it'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store why' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store why' -s k -l kernel -x -d 'of this kernel release'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store; and test $_shtab_nvidia_driver_npos -eq 0' -a prune -d 'give up damaged entries set aside, and what was used least recently; what runs, ran last or is to run stays'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store prune' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store prune' -l max-size -x -d 'such as 2G; default: STORE_MAX_SIZE'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store; and test $_shtab_nvidia_driver_npos -eq 0' -a export -d 'write entries to one file, for nodes that reach neither packages nor a server'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store export' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store export' -s k -l kernel -x -d 'of this kernel release'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store export; and test $_shtab_nvidia_driver_npos -ge 0' -ka "(__fish_complete_path (commandline -ct))" -d FILE
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store; and test $_shtab_nvidia_driver_npos -eq 0' -a import -d 'take the entries of a file into the store. They are code for the kernel, checked against damage only: whoever imports a file vouches for where it comes from'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store import' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store import; and test $_shtab_nvidia_driver_npos -eq 0' -ka "(__fish_complete_path (commandline -ct))" -d FILE
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store; and test $_shtab_nvidia_driver_npos -eq 0' -a push -d 'sign entries, and send them to a folder, or by HTTP PUT to an address'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store push' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store push' -l to -x -d 'default: REMOTE_URL'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store push' -l private-key -xka "(__fish_complete_path (commandline -ct))" -d 'PEM file, mode 0600'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store push' -s k -l kernel -x -d 'of this kernel release'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store; and test $_shtab_nvidia_driver_npos -eq 0' -a keygen -d 'make the keys of a remote folder: one for `store push`, one for REMOTE_PUBLIC_KEY'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store keygen' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using store keygen; and test $_shtab_nvidia_driver_npos -eq 0' -ka "(__fish_complete_directories)" -d 'gets private.pem and public.pem'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using; and test $_shtab_nvidia_driver_npos -eq 0' -a reload_nvidia_peermem -d 'load nvidia-peermem once MOFED'"'"'s and our driver are ready, and stay'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using reload_nvidia_peermem' -s h -l help -d 'show this help message and exit'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using; and test $_shtab_nvidia_driver_npos -eq 0' -a probe_nvidia_peermem -d 'exit 1 if nvidia-peermem should be loaded and is not'
complete -c nvidia-driver -n '_shtab_nvidia_driver_using probe_nvidia_peermem' -s h -l help -d 'show this help message and exit'

complete -c driverctr -w nvidia-driver
