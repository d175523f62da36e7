#compdef gradprobe

_gradprobe_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _GRADPROBE_COMPLETE=complete_zsh gradprobe)
}

# From fpath this file is the function itself, at every Tab; sourced, it only names it.
if [[ -n ${compstate+set} ]]; then
  _gradprobe_completion "$@"
else
  compdef _gradprobe_completion gradprobe
fi

