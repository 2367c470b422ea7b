//! Who gets a session, and when it ends.

use edge_mqtt::Qos;

use super::*;

const LIMITS: Limits = Limits { sessions_max: 2, queue_bytes_max: 1_000, offline_bytes_max: 1_000 };

struct Rig {
    sessions: Sessions,
    now: Instant,
    last: u64,
}

impl Rig {
    fn new() -> Self {
        Self { sessions: Sessions::new(LIMITS), now: Instant::now(), last: 0 }
    }

    fn mailbox(&mut self) -> Arc<Mailbox> {
        self.last += 1;
        Arc::new(Mailbox::new(self.last, 1))
    }

    fn open(
        &self,
        client_id: &str,
        clean_start: bool,
        user: &str,
        mailbox: &Arc<Mailbox>,
    ) -> (Result<Opened, ReasonCode>, Aftermath) {
        let identity = Identity { user: Some(user.into()), ..Identity::default() };
        let (lasts, identity) = (true, &identity);
        let request = Request { client_id, clean_start, lasts, identity, mailbox };
        self.sessions.open(&request, self.now)
    }

    fn opened(&mut self, client_id: &str) -> (Arc<Inbox>, bool) {
        let mailbox = self.mailbox();
        match self.open(client_id, false, "u", &mailbox).0 {
            Ok(Opened::Session { inbox, resumed, .. }) => (inbox, resumed.is_some()),
            _ => panic!("the session is free"),
        }
    }

    fn give_back(&self, client_id: &str, inbox: &Arc<Inbox>, ending: Ending) -> Aftermath {
        self.sessions.give_back(client_id, inbox, ending, VecDeque::new(), self.now)
    }
}

fn ending(session_expiry_s: u32, will_delay_s: Option<u32>) -> Ending {
    let will = will_delay_s.map(|delay_s| Will {
        topic: "w".to_owned(),
        payload: Vec::new(),
        properties_raw: Vec::new(),
        expiry_s: None,
        delay_s,
        qos: Qos::AtMostOnce,
        retain: false,
    });
    Ending { will, session_expiry_s, state: SessionState::default() }
}

#[test]
fn mqtt_3_1_2_4_a_clean_start_ends_the_session() {
    let mut rig = Rig::new();
    let (inbox, _) = rig.opened("c");
    rig.give_back("c", &inbox, ending(60, None));
    let mailbox = rig.mailbox();
    let (opened, aftermath) = rig.open("c", true, "u", &mailbox);
    assert!(matches!(opened, Ok(Opened::Session { resumed: None, .. })));
    assert_eq!(aftermath.ended.len(), 1);
}

#[test]
fn mqtt_3_1_2_5_a_session_goes_on_until_it_expires() {
    let mut rig = Rig::new();
    let (inbox, resumed) = rig.opened("c");
    assert!(!resumed);
    rig.give_back("c", &inbox, ending(60, None));
    rig.now += Duration::from_secs(59);
    let (inbox, resumed) = rig.opened("c");
    assert!(resumed);
    rig.give_back("c", &inbox, ending(60, None));
    rig.now += Duration::from_secs(60);
    assert_eq!(rig.sessions.expire(rig.now).ended.len(), 1);
    assert!(!rig.opened("c").1);
}

#[test]
fn mqtt_3_1_4_3_the_older_connection_goes_and_its_session_is_handed_on() {
    let mut rig = Rig::new();
    let old = rig.mailbox();
    let Ok(Opened::Session { inbox, .. }) = rig.open("c", false, "u", &old).0 else {
        panic!("free")
    };
    let new = rig.mailbox();
    assert!(matches!(rig.open("c", false, "u", &new).0, Ok(Opened::Wait)));
    assert_eq!(old.ordered(), Some(ReasonCode::SessionTakenOver));
    new.look();
    rig.give_back("c", &inbox, ending(60, None));
    assert!(new.look(), "it is woken");
    assert!(matches!(
        rig.open("c", false, "u", &new).0,
        Ok(Opened::Session { resumed: Some(_), .. })
    ));
}

#[test]
fn a_session_is_not_handed_to_another_user() {
    let mut rig = Rig::new();
    let (inbox, _) = rig.opened("c");
    rig.give_back("c", &inbox, ending(60, None));
    let mailbox = rig.mailbox();
    let (opened, aftermath) = rig.open("c", false, "somebody else", &mailbox);
    assert!(matches!(opened, Ok(Opened::Session { resumed: None, .. })));
    assert_eq!(aftermath.ended.len(), 1);
}

#[test]
fn a_session_is_not_handed_to_another_certificate() {
    let mut rig = Rig::new();
    let open = |rig: &mut Rig, name: &str| {
        let mailbox = rig.mailbox();
        let certificate = Arc::from([name.to_owned()]);
        let identity = Identity { certificate, ..Identity::default() };
        let request = Request {
            client_id: "c",
            clean_start: false,
            lasts: true,
            identity: &identity,
            mailbox: &mailbox,
        };
        match rig.sessions.open(&request, rig.now).0 {
            Ok(Opened::Session { inbox, resumed, .. }) => (inbox, resumed.is_some()),
            _ => panic!("the session is free"),
        }
    };
    let (inbox, _) = open(&mut rig, "a.plant");
    rig.give_back("c", &inbox, ending(60, None));
    let (inbox, is_resumed) = open(&mut rig, "a.plant");
    assert!(is_resumed);
    rig.give_back("c", &inbox, ending(60, None));
    assert!(!open(&mut rig, "b.plant").1);
}

#[test]
fn mqtt_3_1_3_9_a_delayed_will_is_not_published_when_the_client_is_back_in_time() {
    let mut rig = Rig::new();
    let (inbox, _) = rig.opened("c");
    assert!(rig.give_back("c", &inbox, ending(60, Some(10))).wills.is_empty());
    rig.now += Duration::from_secs(9);
    assert!(rig.sessions.expire(rig.now).wills.is_empty());
    let (inbox, _) = rig.opened("c");
    rig.now += Duration::from_secs(10);
    assert!(rig.sessions.expire(rig.now).wills.is_empty());

    rig.give_back("c", &inbox, ending(60, Some(10)));
    rig.now += Duration::from_secs(10);
    assert_eq!(rig.sessions.expire(rig.now).wills.len(), 1);
    assert!(rig.sessions.expire(rig.now).wills.is_empty(), "once");
}

#[test]
fn mqtt_3_1_2_8_a_will_is_published_when_its_session_ends_before_its_delay() {
    let mut rig = Rig::new();
    let (inbox, _) = rig.opened("c");
    rig.give_back("c", &inbox, ending(5, Some(100)));
    rig.now += Duration::from_secs(5);
    let over = rig.sessions.expire(rig.now);
    assert_eq!((over.wills.len(), over.ended.len()), (1, 1));

    let (inbox, _) = rig.opened("c");
    rig.give_back("c", &inbox, ending(5, Some(100)));
    let mailbox = rig.mailbox();
    assert_eq!(rig.open("c", true, "u", &mailbox).1.wills.len(), 1, "by a clean start");

    let (inbox, _) = rig.opened("d");
    assert_eq!(rig.give_back("d", &inbox, ending(0, Some(100))).wills.len(), 1, "without expiry");
}

#[test]
fn the_number_of_lasting_sessions_is_bounded() {
    let mut rig = Rig::new();
    let (a, _) = rig.opened("a");
    rig.opened("b");
    let mailbox = rig.mailbox();
    let refused = rig.open("c", false, "u", &mailbox).0;
    assert!(matches!(refused, Err(ReasonCode::QuotaExceeded)));
    rig.give_back("a", &a, ending(0, None));
    assert!(!rig.opened("c").1);
}
