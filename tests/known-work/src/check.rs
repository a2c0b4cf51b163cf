//! What `check` says of tracers, read from its text: minimal prints no JSON.

use serde_json::{Value, json};

/// Columns of the first word, and of the name behind it.
const STATUS: usize = 9;
const MISSING: usize = 26;
const LADDER: usize = 34;

/// `tracers` as `check --json` has them, but for those without a ladder; `None` if it says nothing of them.
pub fn tracers(text: &str) -> Option<Value> {
    let (_, lines) = text.split_once("\nTracers\n")?;
    let mut tracers: Vec<Value> = Vec::new();
    for line in lines.lines() {
        let Some((status, rest)) = line.split_at_checked(STATUS) else { continue };
        let column = |width| rest.split_at_checked(width).unwrap_or((rest, ""));
        match status.trim() {
            "missing" => {
                let (name, error) = column(MISSING);
                tracers.push(json!({"name": name.trim(), "ok": false, "error": error, "ladders": []}));
            }
            "" => {
                let refused =
                    column(LADDER).1.strip_prefix("not ").and_then(|refused| refused.split_once(": "));
                let ladder =
                    tracers.last_mut().and_then(|tracer| tracer["ladders"].as_array_mut()?.last_mut());
                let (Some((rung, reason)), Some(ladder)) = (refused, ladder) else { continue };
                let refused = ladder["refused"].as_array_mut().expect("made as one");
                refused.push(json!({"rung": rung, "reason": reason}));
            }
            _ => {
                let (name, rung) = column(LADDER);
                let Some((tracer, what)) = name.trim().split_once(": ") else { continue };
                let rung =
                    Some(rung).filter(|rung| !["off unless it is asked for", "unavailable"].contains(rung));
                let ladder = json!({"what": what, "rung": rung, "refused": []});
                match tracers.last_mut().filter(|last| last["name"] == tracer) {
                    Some(last) => last["ladders"].as_array_mut().expect("made as one").push(ladder),
                    None => {
                        tracers.push(json!({"name": tracer, "ok": true, "error": null, "ladders": [ladder]}))
                    }
                }
            }
        }
    }
    Some(Value::Array(tracers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_the_json_does() {
        let text = "\
ok       profile                   loads

The profiler can run here.

Tracers
ok       profile: CPU samples              cpu-clock
degraded tcp: accepting process            use
                                           not fexit: program accept_fexit: EPERM
missing  heap                      cannot load: no uprobes
degraded memory: OOM kills                 unavailable
                                           not fentry: no BTF
                                           not kprobe: none: here
ok       memory: page-fault stacks         off unless it is asked for
";
        let refused = |rung: &str, reason: &str| json!({"rung": rung, "reason": reason});
        let tracer =
            |name: &str, ladders: Value| json!({"name": name, "ok": true, "error": null, "ladders": ladders});
        let expected = json!([
            tracer("profile", json!([{"what": "CPU samples", "rung": "cpu-clock", "refused": []}])),
            tracer(
                "tcp",
                json!([{"what": "accepting process", "rung": "use",
                    "refused": [refused("fexit", "program accept_fexit: EPERM")]}])
            ),
            {"name": "heap", "ok": false, "error": "cannot load: no uprobes", "ladders": []},
            tracer(
                "memory",
                json!([
                    {"what": "OOM kills", "rung": null,
                        "refused": [refused("fentry", "no BTF"), refused("kprobe", "none: here")]},
                    {"what": "page-fault stacks", "rung": null, "refused": []},
                ])
            ),
        ]);
        assert_eq!(tracers(text), Some(expected));
        assert_eq!(tracers("ebpf-otlp: no"), None);
    }
}
