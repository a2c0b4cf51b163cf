//! What the shells themselves make of `ebpf-otlp completions`.

use std::path::Path;
use std::process::{Command, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_ebpf-otlp");

/// What a shell's script prints, with the binary first in the path; `None` where there is no such shell.
fn say(shell: &str, arguments: &[&str], script: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    if !path.split(':').any(|folder| Path::new(folder).join(shell).exists()) {
        println!("SKIP {shell}: it is not installed");
        return None;
    }
    let path = format!("{}:{path}", Path::new(BINARY).parent().unwrap().display());
    let mut command = Command::new("timeout");
    command.args(["60", shell]).args(arguments).args(["-c", script]).env("PATH", path).env("TERM", "dumb");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{shell}: {}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "", "{shell}");
    Some(text(&output.stdout))
}

/// Asked, what is offered, and what is not.
const CASES: [(&str, &[&str], &[&str]); 8] = [
    ("ebpf-otlp pro", &["profile"], &["run", "disk"]),
    ("ebpf-otlp ", &["run", "profile", "completions"], &["--config"]),
    (
        "ebpf-otlp run --",
        &["--config", "--endpoint", "--memory-budget", "--help"],
        &["--frequency", "profile"],
    ),
    ("ebpf-otlp profile --fre", &["--frequency"], &["--pid"]),
    ("ebpf-otlp run --only ", &["profile", "tcp", "sched"], &["--config", "network"]),
    ("ebpf-otlp network --only ", &["tcp", "udp", "dns"], &["profile"]),
    ("ebpf-otlp completions ", &["bash", "zsh", "fish"], &["run"]),
    ("ebpf-otlp run --config Cargo.t", &["Cargo.toml"], &["src"]),
];

fn judge(shell: &str, asked: &str, said: &str) {
    let (_, offered, missing) = CASES.iter().find(|(line, ..)| *line == asked).unwrap();
    let words: Vec<&str> = said.split_whitespace().collect();
    for word in *offered {
        assert!(words.contains(word), "{shell}: {asked:?} does not offer {word}: {said}");
    }
    for word in *missing {
        assert!(!words.contains(word), "{shell}: {asked:?} offers {word}: {said}");
    }
}

#[test]
fn bash_completes() {
    for (line, ..) in CASES {
        let words: Vec<&str> = line.split(' ').collect();
        let script = format!(
            "source <(ebpf-otlp completions bash); complete -p ebpf-otlp > /dev/null
            COMP_WORDS=({} {}) COMP_CWORD={}; _ebpf_otlp; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words[..words.len() - 1].join(" "),
            if words.last() == Some(&"") { "''" } else { words[words.len() - 1] },
            words.len() - 1
        );
        let Some(said) = say("bash", &["--norc"], &script) else { return };
        judge("bash", line, &said);
    }
    // `=` is a word of its own, and lists grow behind a comma.
    for (words, at, expected) in [
        ("ebpf-otlp run --config = Cargo.t", 4, "Cargo.toml"),
        ("ebpf-otlp run --config =", 3, "Cargo.toml"),
        ("ebpf-otlp run --only tcp,ud", 3, "tcp,udp"),
        ("ebpf-otlp inspect Cargo.t", 2, "Cargo.toml"),
        ("ebpf-otlp profile --pid 1", 3, "1"),
    ] {
        let script = format!(
            "source <(ebpf-otlp completions bash)
            COMP_WORDS=({words}) COMP_CWORD={at}; _ebpf_otlp; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let said = say("bash", &["--norc"], &script).unwrap();
        assert!(said.lines().any(|line| line == expected), "{words}: {said}");
    }
}

#[test]
fn fish_completes() {
    for (line, ..) in CASES {
        let script = format!("ebpf-otlp completions fish | source; complete -C '{line}'");
        let Some(said) = say("fish", &["--no-config"], &script) else { return };
        judge("fish", line, &said);
    }
}

/// zsh completes in its line editor alone, which needs a terminal: here one of its own, where `Tab` prints what is found.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty terminal zsh -f -i
zpty -w terminal 'PROMPT=; autoload -U compinit; compinit -u -D; source <(ebpf-otlp completions zsh)'
zpty -w terminal 'find() {
    compadd() { local -a found; builtin compadd -A found "$@"; print -rl -- "" $found; builtin compadd "$@" }
    _main_complete; unfunction compadd; print -r -- "end of list"; compstate[insert]= compstate[list]=
}'
zpty -w terminal 'zle -C find complete-word find; bindkey "^I" find; print read""y'
local part text=
while zpty -r terminal part; do [[ $part != *ready* ]] || break; done
zpty -w -n terminal "$LINE"$'\t'
while zpty -r terminal part; do text+=$part; [[ $part != *"end of list"* ]] || break; done
print -r -- $text
zpty -d terminal
"#;

#[test]
fn zsh_completes() {
    for (line, ..) in CASES {
        let Some(said) = say("zsh", &["-f"], &ZSH.replace("$LINE", line)) else { return };
        assert!(said.contains("end of list"), "{said}");
        judge("zsh", line, &said);
    }
}
