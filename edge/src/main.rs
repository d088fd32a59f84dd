//! The `headwater` command: see `headwater --help`, and [`headwater::cli`].

fn main() -> std::process::ExitCode {
    headwater::cli::main()
}
