//! The smallest thing that answers like a message centre: what a run is compared with.
//!
//! It binds everybody and gives each message an id. Nothing is checked and nothing kept, so what it answers in a second is
//! what the machine's sockets and this generator can do.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use crossbeam_channel::Sender;
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::spawn_local;
use glommio::timer::sleep;
use smppd::pdu::{CommandId, CommandStatus, Framing, next_frame, put_header_only};

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Read at once.
const READ_OCTETS: usize = 256 << 10;
/// Longer PDUs end a connection.
const PDU_OCTETS_MAX: usize = 80 << 10;
/// How long a request to stop may go unseen.
const TICK: Duration = Duration::from_millis(4);

/// Answers on `address` until told to stop; says on `ready` where, or why not.
pub(crate) async fn serve(
    address: SocketAddr,
    stops: Arc<AtomicBool>,
    ready: Sender<Result<SocketAddr, String>>,
) {
    let listener = match TcpListener::bind(address) {
        Ok(listener) => listener,
        Err(error) => {
            _ = ready.send(Err(format!("{address}: {error}")));
            return;
        }
    };
    _ = ready.send(listener.local_addr().map_err(|error| error.to_string()));
    let next_id = Rc::new(Cell::new(1));
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok(stream) => {
                    let next_id = Rc::clone(&next_id);
                    spawn_local(async move { _ = answer(stream, &next_id).await }).detach();
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let stopping = async {
        while !stops.load(Ordering::Relaxed) {
            sleep(TICK).await;
        }
    };
    accepting.or(stopping).await;
}

/// Answers one connection until it ends.
async fn answer(mut stream: TcpStream, next_id: &Cell<u64>) -> io::Result<()> {
    stream.set_nodelay(true).map_err(io::Error::from)?;
    let mut input = vec![0; READ_OCTETS];
    let mut filled = 0;
    let mut output = Vec::new();
    loop {
        let count = stream.read(&mut input[filled..]).await?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let mut rest = &input[..filled];
        let mut is_over = false;
        loop {
            match next_frame(rest, PDU_OCTETS_MAX) {
                Framing::Frame(frame) => {
                    let header = frame.header;
                    is_over |= put_response(header.command_id, header.sequence_number, next_id, &mut output);
                    rest = &rest[header.command_length as usize..];
                }
                Framing::Incomplete => break,
                Framing::Broken { .. } => return Ok(()),
            }
        }
        let left = rest.len();
        input.copy_within(filled - left..filled, 0);
        filled = left;
        stream.write_all(&output).await?;
        output.clear();
        if is_over {
            return Ok(());
        }
    }
}

/// Appends the response to a request, if it has one; whether it was the last.
fn put_response(request: CommandId, sequence_number: u32, next_id: &Cell<u64>, output: &mut Vec<u8>) -> bool {
    if request.is_response() {
        return false;
    }
    let begin = output.len();
    put_header_only(request.response(), CommandStatus::ESME_ROK, sequence_number, output);
    match request {
        CommandId::SUBMIT_SM | CommandId::DATA_SM => {
            let id = next_id.replace(next_id.get() + 1);
            put_decimal(id, output);
            output.push(0);
        }
        CommandId::BIND_TRANSCEIVER | CommandId::BIND_TRANSMITTER | CommandId::BIND_RECEIVER => {
            output.extend_from_slice(b"echo\0");
        }
        _ => return request == CommandId::UNBIND,
    }
    let length = (output.len() - begin) as u32;
    output[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
    false
}

fn put_decimal(mut number: u64, output: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    output.extend_from_slice(&digits[at..]);
}
