//! The `smppd` program.

fn main() -> std::process::ExitCode {
    let text = std::fs::read_to_string(std::env::args().nth(1).unwrap()).unwrap();
    let config = smppd::config::Config::parse(&text).unwrap();
    smppd::server::serve(config, || Err("x".into()))
}
