//! As much HTTP as it takes to ask for metrics: a GET, its answer, the end of the connection. Whatever comes instead, and
//! whatever there is too little of, the next one is answered.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::server::descriptors;

/// Clients that are answered at once; the kernel's queue holds the others.
const CLIENTS_MAX: usize = 8;
/// How long a client may take to say what it wants, and again to take the answer and close.
const PATIENCE: Duration = Duration::from_secs(2);
/// A request has so many octets at most.
const REQUEST_OCTETS_MAX: usize = 8 << 10;
/// After this it is tried again to accept a connection, when one could not be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a client is told.
pub(super) struct Answer {
    /// A number, and what it means.
    pub(super) status: &'static str,
    /// Text in the form of Prometheus.
    pub(super) text: String,
}

/// Answers GETs by their paths, from threads of their own; the address they are for.
///
/// # Errors
/// The address cannot be listened on, or there is no thread.
pub(super) fn start(
    address: SocketAddr,
    get: impl Fn(&str) -> Answer + Send + Sync + 'static,
) -> io::Result<SocketAddr> {
    start_with(address, PATIENCE, get)
}

fn start_with(
    address: SocketAddr,
    patience: Duration,
    get: impl Fn(&str) -> Answer + Send + Sync + 'static,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?;
    let shared = Arc::new((listener, get));
    for _ in 0..CLIENTS_MAX {
        let shared = Arc::clone(&shared);
        thread::Builder::new().name("admin".into()).spawn(move || {
            let (listener, get) = &*shared;
            loop {
                match listener.accept() {
                    // A client that went away is no news.
                    Ok((client, _)) => _ = answer(&client, patience, get),
                    Err(error) if descriptors::is_shortage(error.raw_os_error()) => {
                        descriptors::note(true, "metrics and health");
                        thread::sleep(ACCEPT_PAUSE);
                    }
                    Err(error) => {
                        log::warn!("metrics and health: no connection could be accepted: {error}");
                        thread::sleep(ACCEPT_PAUSE);
                    }
                }
            }
        })?;
    }
    Ok(bound)
}

fn answer(mut client: &TcpStream, patience: Duration, get: impl Fn(&str) -> Answer) -> io::Result<()> {
    let Answer { status, text } = match request(client, Instant::now() + patience)? {
        None => told("431 Request Header Fields Too Large", "a request is shorter\n"),
        Some(request) => {
            let mut words = request.lines().next().unwrap_or_default().split(' ');
            match (words.next(), words.next()) {
                (Some("GET"), Some(path)) => get(path),
                _ => told("405 Method Not Allowed", "only GET\n"),
            }
        }
    };
    let octets = text.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {octets}\r\nConnection: close\r\n\r\n"
    );
    client.set_write_timeout(Some(patience))?;
    client.write_all((head + &text).as_bytes())?;
    // A socket that is closed while octets are unread takes the answer back.
    client.shutdown(Shutdown::Write)?;
    let until = Instant::now() + patience;
    while read(client, until)?.1 > 0 {}
    Ok(())
}

/// A request up to the empty line; `None`: it is too long. Nobody knows what may stand in it.
fn request(client: &TcpStream, until: Instant) -> io::Result<Option<String>> {
    let mut octets = Vec::new();
    while !octets.windows(4).any(|end| end == b"\r\n\r\n") {
        let (buffer, count) = read(client, until)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        octets.extend_from_slice(&buffer[..count]);
        if octets.len() > REQUEST_OCTETS_MAX {
            return Ok(None);
        }
    }
    Ok(Some(String::from_utf8_lossy(&octets).into_owned()))
}

/// What has come, and how many octets of it; however little comes at a time, not for longer than `until`.
fn read(mut client: &TcpStream, until: Instant) -> io::Result<([u8; 1_024], usize)> {
    let mut buffer = [0; 1_024];
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    client.set_read_timeout(Some(left))?;
    let count = client.read(&mut buffer)?;
    Ok((buffer, count))
}

fn told(status: &'static str, text: &str) -> Answer {
    Answer { status, text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who has all the time that a busy machine may take.
    const PATIENT: Duration = Duration::from_secs(600);

    fn server(patience: Duration) -> SocketAddr {
        let get = |path: &str| told(if path == "/there" { "200 OK" } else { "404 Not Found" }, path);
        start_with(SocketAddr::from(([127, 0, 0, 1], 0)), patience, get).expect("a port")
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let client = TcpStream::connect(address).expect("a connection");
        client.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        client
    }

    fn rest(mut client: &TcpStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).expect("an end");
        text
    }

    #[test]
    fn a_get_is_answered_however_it_comes_and_nothing_else_is() {
        let address = server(PATIENT);
        for (request, status, text) in [
            ("GET /there HTTP/1.0\r\n\r\n", "200 OK", "/there"),
            ("GET /there HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n", "200 OK", "/there"),
            ("GET /there?more HTTP/1.1\r\n\r\n", "404 Not Found", "/there?more"),
            ("POST /there HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody", "405 Method Not Allowed", "only GET\n"),
            ("GET\r\n\r\n", "405 Method Not Allowed", "only GET\n"),
            ("\r\n\r\n", "405 Method Not Allowed", "only GET\n"),
        ] {
            for octets_at_once in [1, request.len()] {
                let mut client = connect(address);
                for piece in request.as_bytes().chunks(octets_at_once) {
                    client.write_all(piece).expect("a connection");
                }
                let answer = rest(&client);
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:?}: {answer}");
                let length = format!("\r\nContent-Length: {}\r\n", text.len());
                assert!(answer.contains(&length), "{request:?}: {answer}");
                assert!(answer.ends_with(&format!("\r\n\r\n{text}")), "{request:?}: {answer}");
            }
        }
    }

    #[test]
    fn a_request_that_does_not_end_is_refused() {
        let address = server(PATIENT);
        let mut client = connect(address);
        client.write_all(&[b'x'; REQUEST_OCTETS_MAX + 1]).expect("a connection");
        assert!(rest(&client).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn whoever_says_nothing_is_sent_away_and_keeps_nobody_out() {
        let address = server(Duration::from_millis(100));
        let silent: Vec<TcpStream> = (0..2 * CLIENTS_MAX).map(|_| connect(address)).collect();
        // On a busy machine we may be too late ourselves, but not for ever.
        let until = Instant::now() + PATIENT;
        loop {
            let mut client = connect(address);
            let asked = client.write_all(b"GET /there HTTP/1.0\r\n\r\n");
            let mut answer = String::new();
            if asked.is_ok() && client.read_to_string(&mut answer).is_ok() && answer.contains(" 200 OK\r\n") {
                break;
            }
            assert!(Instant::now() < until, "nobody is answered");
        }
        assert!(silent.iter().all(|client| rest(client).is_empty()));
    }

    #[test]
    fn a_request_that_is_cut_off_is_no_request() {
        let address = server(PATIENT);
        let mut cut = connect(address);
        cut.write_all(b"GET /there").expect("a connection");
        cut.shutdown(Shutdown::Write).expect("a connection");
        assert_eq!(rest(&cut), "");
    }
}
