
_gradprobe_completion() {
    local IFS=$'
'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" \
                   COMP_CWORD=$COMP_CWORD \
                   _GRADPROBE_COMPLETE=complete_bash $1 ) )
    return 0
}

complete -o default -F _gradprobe_completion gradprobe

