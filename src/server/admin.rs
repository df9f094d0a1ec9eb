//! Metrics and health over HTTP, from a thread of its own that no core waits for.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use tiny_http::{Header, Method, Response, Server};

use crate::metrics::Counters;
use crate::server::core::Pulse;

/// Serves `/metrics` and `/health`; the address it got.
///
/// # Errors
/// The address cannot be listened on.
pub(super) fn start(address: SocketAddr, pulses: Vec<Arc<Pulse>>) -> io::Result<SocketAddr> {
    let server = Server::http(address).map_err(io::Error::other)?;
    let bound = server.server_addr().to_ip().unwrap_or(address);
    thread::Builder::new().name("admin".into()).spawn(move || {
        for request in server.incoming_requests() {
            let response = match (request.method(), request.url()) {
                (Method::Get, "/metrics") => plain(200, metrics(&pulses)),
                (Method::Get, "/health") => health(&pulses),
                (Method::Get, _) => plain(404, "try /metrics or /health\n".to_owned()),
                _ => plain(405, "only GET\n".to_owned()),
            };
            // A client that went away is no news.
            _ = request.respond(response);
        }
    })?;
    Ok(bound)
}

fn plain(status: u16, text: String) -> Response<io::Cursor<Vec<u8>>> {
    let response = Response::from_string(text).with_status_code(status);
    match Header::from_bytes("Content-Type", "text/plain; version=0.0.4; charset=utf-8") {
        Ok(header) => response.with_header(header),
        Err(()) => response,
    }
}

fn totals(pulses: &[Arc<Pulse>]) -> Counters {
    let counters = pulses.iter().map(|pulse| match pulse.counters.lock() {
        Ok(counters) => *counters,
        Err(poisoned) => *poisoned.into_inner(),
    });
    counters.fold(Counters::default(), |sum, core| sum.plus(&core))
}

fn metrics(pulses: &[Arc<Pulse>]) -> String {
    let mut text = String::new();
    for (name, help, value) in totals(pulses).each() {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        // Writing to a String does not fail.
        _ = write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n{name} {value}\n", help.trim());
    }
    for (core, pulse) in pulses.iter().enumerate() {
        _ = writeln!(text, "smppd_core_heartbeats_total{{core=\"{core}\"}} {}", pulse.pacemaker.beats());
    }
    text
}

/// 200 while every partition accepts; 503 when one has stopped.
fn health(pulses: &[Arc<Pulse>]) -> Response<io::Cursor<Vec<u8>>> {
    match totals(pulses).failed {
        0 => plain(200, "ok\n".to_owned()),
        failed => plain(503, format!("{failed} partitions have stopped after a disk error\n")),
    }
}
