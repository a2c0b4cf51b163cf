//! A kernel that carries no BTF, which this one becomes where its BTF is hidden: what a few KB in a file are good for.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::agent::binary;
use tests::receivers::TempDir;

/// What an image of firmware has room for.
const MOST: u64 = 20_000;

/// What `check` says of the kernel's types, and of each tracer whether it can start. Where the kernel's own types are hidden,
/// they are so for this process alone; `None` if they cannot be hidden.
fn check(hidden: bool, btf: Option<&Path>) -> Option<(Value, BTreeMap<String, bool>)> {
    let alone = ["--mount", "--propagation", "private"];
    if !Command::new("unshare").args(alone).arg("true").status().unwrap().success() {
        return None;
    }
    let hide = if hidden { "mount -t tmpfs none /sys/kernel/btf || exit 99; " } else { "" };
    let mut command = Command::new("unshare");
    command.args(alone).args(["sh", "-c"]);
    command.arg(format!("{hide}exec \"$@\"")).arg("sh").arg(binary()).args(["check", "--json"]);
    if let Some(btf) = btf {
        command.arg("--btf").arg(btf);
    }
    let output = command.output().unwrap();
    if output.status.code() == Some(99) {
        return None;
    }
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut findings = report["findings"].as_array().unwrap().iter();
    let btf = findings.find(|finding| finding["name"] == "btf").unwrap().clone();
    let tracers = report["tracers"].as_array().unwrap().iter();
    let tracer =
        |tracer: &Value| (tracer["name"].as_str().unwrap().to_owned(), tracer["ok"].as_bool().unwrap());
    Some((btf, tracers.map(tracer).collect()))
}

#[test]
fn with_a_few_kilobytes_tracers_start_as_with_all_types() {
    let folder = TempDir::new("without-btf");
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        println!("SKIP: this kernel carries no types of which few could be kept");
        return;
    }
    let few = folder.join("few.btf");
    let made = Command::new(binary()).args(["btf", "minimize", "--output"]).arg(&few).status().unwrap();
    assert!(made.success());
    let size = few.metadata().unwrap().len();
    assert!((1000..MOST).contains(&size), "{size} bytes");

    let Some((missing, without)) = check(true, None) else {
        println!("SKIP: the kernel's types cannot be hidden (root may, with CAP_SYS_ADMIN)");
        return;
    };
    let (own, usual) = check(false, None).unwrap();
    if !usual.values().any(|ok| *ok) {
        println!("SKIP: nothing can be traced here");
        return;
    }
    assert_eq!((&own["status"], &missing["status"]), (&"ok".into(), &"degraded".into()));
    assert!(missing["remedy"].as_str().unwrap().contains("btf generate"), "{missing}");
    assert_ne!(without, usual, "most tracers need types");

    let (found, with) = check(true, Some(&few)).unwrap();
    assert!(found["value"].as_str().unwrap().contains("few.btf"), "{found}");
    assert_eq!(with, usual);
}
