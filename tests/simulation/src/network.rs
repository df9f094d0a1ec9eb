//! Connections between ESMEs and cores: octets that take their time, come in pieces, or are lost with the line.

use std::collections::BTreeMap;

use crate::oracle::Connection;

/// A line.
#[derive(Debug)]
pub struct Line {
    /// The core at the server's end.
    pub core: usize,
    /// Who is at the other end.
    pub esme: usize,
    /// On their way to the server.
    pub to_server: Vec<u8>,
    /// Read by the server, and waiting for room in the session's window.
    pub unread: Vec<u8>,
    /// On their way to the ESME.
    pub to_esme: Vec<u8>,
    /// The server knows of the connection.
    pub is_accepted: bool,
    /// The server has not closed it.
    pub server_open: bool,
    /// The ESME has not closed it.
    pub esme_open: bool,
    /// The server reads nothing, because the ESME takes nothing, since then.
    pub paused_since: Option<u64>,
    /// Until then the ESME reads nothing.
    pub slow_until: u64,
    /// The connection is on its way from one core to another: nobody looks at it.
    pub is_moving: bool,
    /// When the server learnt that the ESME closed.
    pub closed_since: Option<u64>,
    /// The server has read all that the ESME said before it closed.
    pub is_end_read: bool,
    /// An event will look after the octets to the server.
    pub is_server_due: bool,
    /// An event will look after the octets to the ESME.
    pub is_esme_due: bool,
}

/// All lines of a run; those that are over at both ends are forgotten.
#[derive(Default, Debug)]
pub struct Network {
    lines: BTreeMap<Connection, Line>,
    last: Connection,
}

impl Network {
    /// A new line.
    pub fn connect(&mut self, core: usize, esme: usize) -> Connection {
        self.last += 1;
        let line = Line {
            core,
            esme,
            to_server: Vec::new(),
            unread: Vec::new(),
            to_esme: Vec::new(),
            is_accepted: false,
            server_open: true,
            esme_open: true,
            paused_since: None,
            slow_until: 0,
            is_moving: false,
            closed_since: None,
            is_end_read: false,
            is_server_due: false,
            is_esme_due: false,
        };
        self.lines.insert(self.last, line);
        self.last
    }

    /// A line that is not forgotten.
    pub fn get_mut(&mut self, connection: Connection) -> Option<&mut Line> {
        self.lines.get_mut(&connection)
    }

    /// Forgets a line that is over at both ends.
    pub fn forget_closed(&mut self, connection: Connection) {
        if self.lines.get(&connection).is_some_and(|line| !line.server_open && !line.esme_open) {
            self.lines.remove(&connection);
        }
    }

    /// A line from which the server has not read everything, and how many octets it has not.
    pub fn unread(&self) -> Option<(Connection, usize)> {
        let open = self.lines.iter().filter(|(_, line)| line.server_open);
        let octets = open.map(|(connection, line)| (*connection, line.to_server.len() + line.unread.len()));
        octets.into_iter().find(|(_, octets)| *octets > 0)
    }

    /// Every line.
    pub fn connections(&self) -> Vec<Connection> {
        self.lines.keys().copied().collect()
    }
}
