fn main() -> std::process::ExitCode {
    debshrew::cli::main()
}
