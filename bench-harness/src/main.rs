//! `smpp-bench`: plays the customers of an SMPP server, measures what they see, and says when a promise was broken.

mod arrivals;
mod compare;
mod conductor;
mod connection;
mod echo;
mod esme;
mod executor;
mod measure;
mod message;
mod misbehaviour;
mod options;
mod pair;
mod progress;
mod referee;
mod report;
mod run;
mod saturate;
mod scenario;
mod self_test;
mod server;
mod transport;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::options::{Command, Options};
use crate::report::Report;
use crate::scenario::{BUILT_IN, Scenario};
use crate::self_test::Echo;

/// The run was made, and every promise held.
const HELD: u8 = 0;
/// A promise was broken, or a goal was missed.
const BROKEN: u8 = 1;
/// The run could not be made.
const IMPOSSIBLE: u8 = 2;

fn main() -> ExitCode {
    let outcome = match Options::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Compare { a, b } => compare_files(&a, &b),
        Command::Html { document, page } => html(&document, &page),
        Command::Scenarios { name } => scenarios(name.as_deref()),
        Command::Echo { address, pin } => echo(address, pin),
        Command::SelfTest { seconds, at_least } => self_test::run(seconds, at_least),
    };
    match outcome {
        Ok(true) => ExitCode::from(HELD),
        Ok(false) => ExitCode::from(BROKEN),
        Err(message) => {
            eprintln!("smpp-bench: {message}");
            ExitCode::from(IMPOSSIBLE)
        }
    }
}

fn compare_files(a: &Path, b: &Path) -> Result<bool, String> {
    print!("{}", compare::compare(&Report::read(a)?, &Report::read(b)?));
    Ok(true)
}

fn html(document: &Path, page: &Path) -> Result<bool, String> {
    let text = report::html::html(&Report::read(document)?)?;
    std::fs::write(page, text).map_err(|error| format!("{}: {error}", page.display()))?;
    Ok(true)
}

fn scenarios(name: Option<&str>) -> Result<bool, String> {
    match name {
        None => {
            for (name, text) in BUILT_IN {
                println!("{name:<16} {}", Scenario::parse(text)?.about);
            }
        }
        Some(name) => {
            let (_, text) = BUILT_IN
                .iter()
                .find(|(known, _)| *known == name)
                .ok_or_else(|| format!("no scenario {name:?}; `smpp-bench scenarios` lists them"))?;
            print!("{text}");
        }
    }
    Ok(true)
}

fn echo(address: SocketAddr, pin: Option<usize>) -> Result<bool, String> {
    let echo = Echo::start(address, pin)?;
    println!("answering at {}, until Ctrl-C", echo.address);
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
    signals.forever().next();
    Ok(true)
}
