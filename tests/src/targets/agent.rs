//! What the agent reads that nobody vouches for: requests to its port, and its file.

use collector::agent::config::AgentConfig;
use collector::agent::health::{Connection, MAX_REQUEST, Next};

/// A client's bytes, in parts: the first byte says how long they are. There is one answer, and it is bounded.
pub fn agent_health(data: &[u8]) {
    let Some((size, bytes)) = data.split_first() else { return };
    let pages = |path: &str| path.starts_with("/h").then(|| (path.len() % 2 == 0, path.to_owned().into()));
    let mut connection = Connection::default();
    let mut answer: Option<Vec<u8>> = None;
    for part in bytes.chunks(usize::from(*size) + 1) {
        let next = connection.receive(part, &pages);
        assert_ne!(next, Next::Close, "only a whole answer ends it");
        assert_eq!(next == Next::Write, !connection.output().is_empty());
        match &answer {
            Some(answer) => assert_eq!(answer, connection.output(), "nothing that comes later changes it"),
            None if next == Next::Write => answer = Some(connection.output().to_vec()),
            None => {}
        }
    }
    assert!(answer.is_some() || bytes.len() < MAX_REQUEST, "nobody may go on for ever");
    if answer.is_some() {
        let (mut sent, mut next) = (Vec::new(), Next::Write);
        while next == Next::Write {
            let part = connection.output();
            let part = part.get(..1 + usize::from(*size)).unwrap_or(part).to_vec();
            next = connection.sent(part.len());
            sent.extend(part);
        }
        assert_eq!((next, connection.output()), (Next::Close, &[][..]));
        let text = std::str::from_utf8(&sent).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 "), "{text}");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        assert!(body.is_empty() || length == Some(body.len()), "{text}");
    }
}

/// A file. What is accepted is valid; what is not is said with its line.
pub fn agent_config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match AgentConfig::resolve(Some(("file", &text)), [], &[]) {
        Ok(config) => assert_eq!(config.validate(), Ok(())),
        Err(problem) => {
            assert!(
                !problem.what.is_empty() && (problem.place.is_empty() || problem.place.starts_with("file:"))
            );
        }
    }
}
