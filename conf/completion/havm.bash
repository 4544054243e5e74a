# bash completion of havm; installed as /usr/share/bash-completion/completions/havm

# The options of each command; a test compares them with the program's own table.
_havm_options() {
  case $1 in
    list) echo "--all --name --uuid --title --json" ;;
    dominfo) echo "--json" ;;
    domstate) echo "--json" ;;
    explain) echo "--json" ;;
    wait) echo "--timeout --json" ;;
    protect) echo "--peer --policy --restart --dry-run --wait --timeout --json" ;;
    unprotect) echo "--restart --dry-run --yes --json" ;;
    failover) echo "--to --dry-run --wait --timeout --json" ;;
    resync-verify) echo "--repair --yes --cancel --wait --no-wait --timeout --json" ;;
    resync-pause) echo "--reason --dry-run --json" ;;
    resync-resume) echo "--dry-run --json" ;;
    snapshot-list) echo "--json" ;;
    start) echo "--json" ;;
    shutdown) echo "--json" ;;
    destroy) echo "--json" ;;
    node-list) echo "--json" ;;
    version) echo "--json" ;;
    cluster-init) echo "--config --node --dir --days --force --dry-run --json" ;;
    node-join) echo "--out --from --config --node --dir --days --force --dry-run --json" ;;
    certificate-info) echo "--dir --json" ;;
    cluster-validate) echo "--json" ;;
    policy-validate) echo "--json" ;;
    help) ;;
  esac
}

_havm_commands="list dominfo domstate explain wait protect unprotect failover
  resync-verify resync-pause resync-resume snapshot-list start shutdown destroy
  cluster-init node-join certificate-info
  node-list version cluster-validate policy-validate help"

# What may stand in the first place behind a command.
_havm_arguments() {
  case $1 in
    protect) havm -q list --all --name 2>/dev/null ;;
    dominfo | domstate) havm -q list --all --name 2>/dev/null ;;
    explain | wait | unprotect | failover | resync-verify | resync-pause | resync-resume | \
      snapshot-list | start | shutdown | destroy)
      havm -q list --name 2>/dev/null
      ;;
    node-join) _havm_nodes ;;
    help) echo "$_havm_commands" ;;
  esac
}

_havm_nodes() {
  havm -q node-list 2>/dev/null | while read -r name _; do echo "$name"; done
}

_havm() {
  local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  local command="" place=0 i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      -c | --connect) ((i++)) ;;
      -*) ;;
      *)
        command=${COMP_WORDS[i]}
        place=$((COMP_CWORD - i))
        break
        ;;
    esac
  done
  local IFS=$' \t\n'
  if [[ -z $command ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$_havm_commands --connect --quiet --json --version --help" -- "$word")
    return
  fi
  case $previous in
    --peer | --to | --node)
      mapfile -t COMPREPLY < <(compgen -W "$(_havm_nodes)" -- "$word")
      return
      ;;
    --policy | --config | --out | --from | --dir)
      mapfile -t COMPREPLY < <(compgen -f -- "$word")
      return
      ;;
    --timeout | --days | --reason) return ;;
  esac
  if [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(_havm_options "$command") --help" -- "$word")
  elif [[ $command == *-validate ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  elif [[ $command == wait && $place -eq 2 ]]; then
    mapfile -t COMPREPLY < <(compgen -W "running paused shut-off in-sync resyncing alone ready protected" -- "$word")
  else
    mapfile -t COMPREPLY < <(compgen -W "$(_havm_arguments "$command")" -- "$word")
  fi
}

complete -o filenames -F _havm havm
