//! What is read, what is refused, and what is documented.

use super::*;
use crate::carrier::Behaviour;
use crate::pdu::receipt::MessageState;

fn refused(text: &str) -> ConfigError {
    match Config::parse(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error,
    }
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    assert_eq!(Config::parse(Config::DEFAULT_TEXT), Ok(Config::default()));
    assert_eq!(Config::parse(""), Ok(Config::default()));
}

#[test]
fn every_key_is_documented() {
    // The reader names the keys it knows when it meets one that it does not.
    let mut known = 0;
    for section in [
        "zzz = 1",
        "[listen]\nzzz = 1",
        "[tls]\nzzz = 1",
        "[accounts]\nzzz = 1",
        "[session]\nzzz = 1",
        "[limits]\nzzz = 1",
        "[messages]\nzzz = 1",
        "[journal]\nzzz = 1",
        "[[route]]\nzzz = 1",
        "[carrier.x]\nzzz = 1",
        "[carrier.x]\nkind = \"simulator\"\noutcomes = [{ zzz = 1 }]",
        "[carrier.x]\nkind = \"simulator\"\n[[carrier.x.rule]]\nzzz = 1",
    ] {
        let reason = refused(section).reason;
        let names = reason.strip_prefix("unknown field `zzz`, expected").expect(&reason);
        for key in names.split('`').skip(1).step_by(2) {
            let text = Config::DEFAULT_TEXT;
            let is_there = [format!("{key} ="), format!("[{key}]"), format!("[{key}."), format!(".{key}]")];
            assert!(is_there.iter().any(|form| text.contains(form)), "{section}: {key}");
            known += 1;
        }
    }
    assert_eq!(known, 68);
}

#[test]
fn reads_what_a_file_names_and_leaves_the_rest() {
    let config = Config::parse(
        r#"
        cores = 3
        data_dir = "/var/lib/smppd"
        durability = "os"
        [listen]
        tls = []
        plain = ["127.0.0.1:0", "[::1]:2775"]
        admin = "127.0.0.1:9776"
        [tls]
        certificate = "a.pem"
        key = "b.pem"
        [session]
        session_init_timeout_seconds = 0.3
        write_timeout_seconds = 2
        [messages]
        parcel_retention_hours = 0.5
        [journal]
        segment_mib = 8
        waiting_mib_max = 2
        "#,
    )
    .expect("sensible");
    let default = Config::default();
    let expected = Config {
        cores: 3,
        data_dir: "/var/lib/smppd".into(),
        durability: Durability::Os,
        listen: Vec::new(),
        listen_plain: ["127.0.0.1:0", "[::1]:2775"].map(|text| text.parse().expect("an address")).into(),
        admin: "127.0.0.1:9776".parse().ok(),
        tls_certificate: Some("a.pem".into()),
        tls_key: Some("b.pem".into()),
        session: SessionSettings {
            session_init_timeout: Duration::from_millis(300),
            ..default.session.clone()
        },
        write_timeout: Duration::from_secs(2),
        partition: PartitionSettings {
            parcel_retention: HOUR / 2,
            journal_waiting_octets_max: 2 << 20,
            ..default.partition
        },
        journal_segment_octets: 8 << 20,
        ..default
    };
    assert_eq!(config, expected);
}

#[test]
fn carriers_keep_the_order_of_the_file() {
    let config = Config::parse(
        r#"
        [[route]]
        prefix = "+44"
        carrier = "alpha"
        [[route]]
        prefix = ""
        carrier = "zulu"
        [carrier.zulu]
        kind = "simulator"
        seed = 7
        rule = []
        [carrier.alpha]
        kind = "simulator"
        outcomes = [{ outcome = "DELIVRD", weight = 95 }, { outcome = "UNDELIV", weight = 5, error = 34 }]
        [[carrier.alpha.rule]]
        suffix = "00"
        outcome = "ACCEPTD-REJECTD"
        error = 8
        "#,
    )
    .expect("sensible");
    let zulu = SimulatorSettings { seed: 7, rules: Vec::new(), ..SimulatorSettings::default() };
    let alpha = SimulatorSettings {
        outcomes: vec![(MessageState::DELIVERED, 0, 95), (MessageState::UNDELIVERABLE, 34, 5)],
        rules: vec![crate::carrier::SimulatorRule {
            prefix: None,
            suffix: Some("00".to_owned()),
            behaviour: Behaviour::AcceptedThen(MessageState::REJECTED),
            error: Some(8),
        }],
        ..SimulatorSettings::default()
    };
    let simulator = |name: &str, settings| (name.to_owned(), CarrierSettings::Simulator(settings));
    assert_eq!(config.carriers, [simulator("zulu", zulu), simulator("alpha", alpha)]);
    assert_eq!(config.routes, [("44".to_owned(), CarrierIndex(1)), (String::new(), CarrierIndex(0))]);
}

#[test]
fn a_single_carrier_takes_everything() {
    let config = Config::parse("[carrier.x]\nkind = \"simulator\"").expect("sensible");
    assert_eq!(config.routes, [(String::new(), CarrierIndex(0))]);
    let config = Config::parse("[[route]]\nprefix = \"1\"\ncarrier = \"simulator\"").expect("sensible");
    assert_eq!(config.routes, [("1".to_owned(), CarrierIndex(0))]);
    assert_eq!(config.carriers, Config::default().carriers);
}

#[test]
fn refuses_what_makes_no_sense_by_key_and_reason() {
    let table = [
        ("cores = ", "cores", "(line 1)"),
        ("\ncorse = 1", "corse", "unknown field `corse`"),
        ("[sesion]", "sesion", "unknown field `sesion`"),
        ("cores = \"all\"", "cores", "invalid type: string"),
        ("cores = -1", "cores", "invalid value: integer `-1`"),
        ("cores = 129", "cores", "129 is not within 0 to 128"),
        ("cores = 1\ncores = 2", "cores", "duplicate key"),
        ("data_dir = \"\"", "data_dir", "must name a directory"),
        ("durability = \"disk\"", "durability", "none of fsync, os, memory"),
        ("log_level = \"loud\"", "log_level", "none of off, error"),
        ("system_id = \"\"", "system_id", "1 to 15"),
        ("system_id = \"a b\"", "system_id", "printable"),
        ("system_id = \"0123456789abcdef\"", "system_id", "1 to 15"),
        ("node = 16", "node", "0 to 15"),
        ("node = 256", "node", "expected u8"),
        ("[listen]\ntls = []", "listen.tls", "no address to listen on"),
        ("[listen]\ntls = [\"2776\"]", "listen.tls", "is no ADDRESS:PORT"),
        ("[listen]\ntls = \"0.0.0.0:2776\"", "listen.tls", "expected a sequence"),
        ("[listen]\nplain = [\"0.0.0.0:2776\"]", "listen.plain", "is there already"),
        ("[listen]\nplain = [\"localhost\"]", "listen.plain", "is no ADDRESS:PORT"),
        ("[listen]\nadmin = \"0.0.0.0:80\"", "listen.admin", "no loopback"),
        ("[listen]\nadmin = \"x\"", "listen.admin", "is no ADDRESS:PORT"),
        ("[tls]\ncertificate = \"a\"", "tls.key", "missing"),
        ("[tls]\nkey = \"a\"", "tls.certificate", "missing"),
        (
            "[session]\nsession_init_timeout_seconds = 0",
            "session.session_init_timeout_seconds",
            "0.01 s to 24 h",
        ),
        ("[session]\nresponse_timeout_seconds = -1", "session.response_timeout_seconds", "no length of time"),
        ("[session]\npdu_timeout_seconds = nan", "session.pdu_timeout_seconds", "no length of time"),
        ("[session]\npdu_timeout_seconds = 1e300", "session.pdu_timeout_seconds", "no length of time"),
        ("[session]\npdu_timeout_seconds = \"1s\"", "session.pdu_timeout_seconds", "expected f64"),
        ("[session]\npdu_octets_max = 16", "session.pdu_octets_max", "1024 to 131072"),
        (
            "[session]\npdu_octets_max = 1024\npdu_octets_max_unbound = 1025",
            "session.pdu_octets_max_unbound",
            "more than",
        ),
        ("[session]\nwindow_in_max = 0", "session.window_in_max", "1 to"),
        ("[session]\nwindow_out_max = 0", "session.window_out_max", "1 to"),
        ("[session]\nbind_attempts_max = 0", "session.bind_attempts_max", "1 to 255"),
        ("[limits]\nconnections_max = 0", "limits.connections_max", "1 to"),
        ("[limits]\noutput_octets_max = 1", "limits.output_octets_max", "4096 to"),
        (
            "[messages]\nvalidity_default_hours = 200",
            "messages.validity_default_hours",
            "200 h is not within 0.01 s to 168 h",
        ),
        (
            "[messages]\nretry_delay_max_seconds = 4",
            "messages.retry_delay_max_seconds",
            "4 s is not within 5 s",
        ),
        ("[messages]\nparcel_retention_hours = 1e18", "messages.parcel_retention_hours", "no length of time"),
        ("[journal]\ncheckpoint_segments = 33", "journal.checkpoint_segments", "1 to 32"),
        ("[journal]\nsegment_mib = 7", "journal.segment_mib", "7 is not within 8"),
        ("[journal]\nsegment_mib = 9223372036854775807", "journal.segment_mib", "too much"),
        ("[[route]]\nprefix = \"1\"", "route", "missing field `carrier`"),
        ("[[route]]\nprefix = \"1\"\ncarrier = \"x\"", "route[0].carrier", "no carrier is called \"x\""),
        ("[[route]]\nprefix = \"abc\"\ncarrier = \"simulator\"", "route[0].prefix", "digits"),
        (
            "[[route]]\nprefix = \"1\"\ncarrier = \"simulator\"\n[[route]]\nprefix = \"+1\"\ncarrier = \"simulator\"",
            "route[1].prefix",
            "has a route already",
        ),
        ("[carrier.a]\nkind = \"simulator\"\n[carrier.b]\nkind = \"simulator\"", "route", "no route"),
        ("[carrier.a]\nkind = \"smpp\"", "carrier.a.kind", "no kind of carrier"),
        ("[carrier.a]\nseed = 1", "carrier.a", "missing field `kind`"),
        (
            "[carrier.a]\nkind = \"simulator\"\ndelay_min_millis = 600",
            "carrier.a.delay_max_millis",
            "not within 0.6 s",
        ),
        (
            "[carrier.a]\nkind = \"simulator\"\noutcomes = [{ outcome = \"ENROUTE\", weight = 1 }]",
            "carrier.a.outcomes",
            "no final state",
        ),
        (
            "[carrier.a]\nkind = \"simulator\"\noutcomes = [{ outcome = \"DELIVRD\", weight = 0 }]",
            "carrier.a.outcomes",
            "more than 0",
        ),
        ("[carrier.a]\nkind = \"simulator\"\nreply_keyword = \"a b\"", "carrier.a.reply_keyword", "letters"),
        (
            "[carrier.a]\nkind = \"simulator\"\n[[carrier.a.rule]]\noutcome = \"NEVER\"",
            "carrier.a.rule",
            "neither",
        ),
        (
            "[carrier.a]\nkind = \"simulator\"\n[[carrier.a.rule]]\nprefix = \"1\"\noutcome = \"ACCEPTD\"",
            "carrier.a.rule.outcome",
            "no final state",
        ),
        (
            "[carrier.a]\nkind = \"simulator\"\n[[carrier.a.rule]]\nprefix = \"1\"\noutcome = \"NEVER\"\nerror = 1000",
            "carrier.a.rule.error",
            "0 to 999",
        ),
    ];
    for (text, key, reason) in table {
        let error = refused(text);
        assert_eq!(error.key, key, "{text}: {error}");
        assert!(error.reason.contains(reason), "{text}: {error}");
    }
}

#[test]
fn an_admin_port_for_others_has_to_be_allowed() {
    let text = "[listen]\nadmin = \"0.0.0.0:80\"\nadmin_allow_remote = true";
    assert_eq!(Config::parse(text).expect("allowed").admin, Some(SocketAddr::from(([0, 0, 0, 0], 80))));
}

#[test]
fn an_error_says_where_and_why() {
    assert_eq!(refused("\n\nnode = 16").to_string(), "node: 16 is not within 0 to 15");
    let error = refused("[session]\n# a comment = 1\nwindow = 5").to_string();
    assert!(error.starts_with("session.window: unknown field `window`, expected one of"), "{error}");
    assert!(error.ends_with("(line 3)"), "{error}");
}
