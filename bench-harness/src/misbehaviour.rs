//! What no ESME should do, done on purpose beside those that behave.

use std::io;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};
use glommio::net::TcpStream;
use glommio::timer::sleep;

use crate::connection::connect;
use crate::esme::{Esme, Seat};
use crate::executor::Core;
use crate::measure::Timed;
use crate::scenario::Misbehaviour;
use crate::transport::Transport;

/// Between two misdeeds of one connection; a flood of connections is another matter (`life`).
const PAUSE: Duration = Duration::from_millis(1);
/// How long an answer is listened for before the next misdeed, or before looking whether the run is over.
const LISTEN: Duration = Duration::from_millis(50);
/// PDUs in one write.
const BATCH: usize = 20;

/// Misbehaves until everybody leaves, on one connection after another.
pub(crate) async fn play(core: &Core, place: usize, seat: &Seat, misbehaviour: Misbehaviour) {
    // Any seed: each connection has another.
    let mut dice = place as u64 + 1;
    while !core.leaves.get() {
        core.measures.borrow_mut().tallies[seat.role.group].requests[Timed::Bind as usize] += 1;
        // The server may end such a connection whenever it likes.
        _ = misbehave(core, seat, misbehaviour, &mut dice).await;
        sleep(PAUSE).await;
    }
}

async fn misbehave(core: &Core, seat: &Seat, misbehaviour: Misbehaviour, dice: &mut u64) -> io::Result<()> {
    let mut line = Line::connect(core).await?;
    match misbehaviour {
        Misbehaviour::Garbage => {
            let octets: Vec<u8> = (0..256).map(|_| roll(dice) as u8).collect();
            line.send(&octets).await?;
            line.listen(LISTEN).await
        }
        Misbehaviour::Silent => line.wait(core).await,
        Misbehaviour::WrongPassword => {
            let mut bind = bind_octets(core, seat, "not the password")?;
            line.send(&bind).await?;
            bind.clear();
            line.listen(LISTEN).await
        }
        Misbehaviour::HalfPdu => {
            line.bind(core, seat).await?;
            let submit = submit_octets();
            line.send(&submit[..submit.len() / 2]).await?;
            line.wait(core).await
        }
        Misbehaviour::Mutated => {
            line.bind(core, seat).await?;
            while !core.leaves.get() {
                let mut octets = Vec::new();
                for _ in 0..BATCH {
                    let mut submit = submit_octets();
                    let at = roll(dice) as usize % submit.len();
                    submit[at] = roll(dice) as u8;
                    octets.append(&mut submit);
                }
                line.send(&octets).await?;
                line.listen(LISTEN).await?;
            }
            Ok(())
        }
        Misbehaviour::NeverReads => {
            line.bind(core, seat).await?;
            let octets = submit_octets().repeat(BATCH);
            while !core.leaves.get() {
                // Blocks for good once everybody's buffers are full.
                let sending = async { line.send(&octets).await.map(|()| true) };
                if !sending.or(patience(core)).await? {
                    break;
                }
            }
            Ok(())
        }
    }
}

/// Waits until everybody leaves.
async fn patience(core: &Core) -> io::Result<bool> {
    while !core.leaves.get() {
        sleep(LISTEN).await;
    }
    Ok(false)
}

/// A connection without a session.
struct Line {
    stream: TcpStream,
    transport: Transport,
}

impl Line {
    async fn connect(core: &Core) -> io::Result<Self> {
        let (stream, transport) = connect(&core.target).await?;
        let mut line = Self { stream, transport };
        line.send(&[]).await?;
        while line.transport.is_handshaking() {
            line.read().await?;
            line.send(&[]).await?;
        }
        Ok(line)
    }

    async fn bind(&mut self, core: &Core, seat: &Seat) -> io::Result<()> {
        self.send(&bind_octets(core, seat, &seat.role.password)?).await?;
        self.read().await
    }

    async fn send(&mut self, plain: &[u8]) -> io::Result<()> {
        let mut octets = Vec::new();
        self.transport.send(plain, &mut octets)?;
        self.stream.write_all(&octets).await
    }

    async fn read(&mut self) -> io::Result<()> {
        let mut raw = [0; 4_096];
        let count = self.stream.read(&mut raw).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.transport.receive(&raw[..count], &mut Vec::new())
    }

    /// Reads whatever comes in such a time.
    async fn listen(&mut self, time: Duration) -> io::Result<()> {
        let reading = async {
            loop {
                self.read().await?;
            }
        };
        reading
            .or(async {
                sleep(time).await;
                Ok(())
            })
            .await
    }

    /// Until the server has enough of us, or everybody leaves.
    async fn wait(&mut self, core: &Core) -> io::Result<()> {
        while !core.leaves.get() {
            self.listen(LISTEN).await?;
        }
        Ok(())
    }
}

fn bind_octets(core: &Core, seat: &Seat, password: &str) -> io::Result<Vec<u8>> {
    let now = core.now();
    let mut esme = Esme::bind_as(&seat.role, password, now, now).map_err(io::Error::other)?;
    Ok(std::mem::take(esme.output()))
}

/// A submit_sm like any other.
fn submit_octets() -> Vec<u8> {
    let body: &[u8] = b"\0\0\0\0\x01\x0112125551234\0\0\0\0\0\0\0\0\0\0\x05hello";
    let mut octets = ((16 + body.len()) as u32).to_be_bytes().to_vec();
    octets.extend_from_slice(&4_u32.to_be_bytes());
    octets.extend_from_slice(&0_u32.to_be_bytes());
    octets.extend_from_slice(&7_u32.to_be_bytes());
    octets.extend_from_slice(body);
    octets
}

/// The next of a row of numbers that look random (xorshift).
const fn roll(dice: &mut u64) -> u64 {
    *dice ^= *dice << 13;
    *dice ^= *dice >> 7;
    *dice ^= *dice << 17;
    *dice
}
