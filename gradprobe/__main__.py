from gradprobe.cli.main import main

main()
