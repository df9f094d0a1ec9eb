//! kill -9, again and again, on one data directory.

use crate::support::load::Mix;
use crate::support::rounds::{Rounds, SETTINGS, place};
use crate::support::{Server, rounds};

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let place = place("killed");
    let launch = place.server().settings(SETTINGS);
    Rounds { mix: Mix::Varied, is_transceiver: false, ..Rounds::of(rounds(20)) }.run(&launch, Server::kill);
}

#[test]
fn nothing_acknowledged_is_lost_when_sessions_submit_and_receive() {
    let place = place("killed-trx");
    Rounds::of(rounds(10)).run(&place.server().settings(SETTINGS), Server::kill);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed_amid_checkpoints() {
    let place = place("killed-heavy");
    // Belongs to `[journal]`.
    let launch = place.server().settings("checkpoint_segments = 1\n").settings(SETTINGS);
    Rounds { mix: Mix::Heavy, messages: 1_500, ..Rounds::of(rounds(5)) }.run(&launch, Server::kill);
}
