//! The `smppd` program.

use std::io::{Write, stdout};
use std::process::ExitCode;

use clap::Parser;
use smppd::server::cli::{Cli, Task, effective_config};
use smppd::server::serve;

fn main() -> ExitCode {
    match Cli::parse().perform() {
        Ok(Task::Serve(config, args)) => {
            serve(&config, || effective_config(&args).map_err(|error| error.to_string()))
        }
        // A reader that has seen enough, such as `head`, is no failure of ours.
        Ok(Task::Print(text)) => {
            stdout().write_all(text.as_bytes()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
        }
        Ok(Task::Exit(code)) => code,
        Err(error) => {
            eprintln!("smppd: {error}");
            error.exit_code()
        }
    }
}
