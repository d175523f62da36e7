
#compdef gradprobe

_gradprobe_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _GRADPROBE_COMPLETE=complete_zsh gradprobe)
}

compdef _gradprobe_completion gradprobe

