//! What is read of code objects is what interpreters say of them themselves: all versions that are installed as `python3.N`.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::{fs, io};

use super::code::Code;
use super::processes::Runtime;
use crate::symbolize::read_at::{FileReader, ReadAt};
use crate::symbolize::{Host, maps};

/// Tells its functions: name, file, address, and of each instruction its number and line; then waits.
const SCRIPT: &str = r#"
import dis, sys
class Größe:
    def wächst(self, x):
        if x:
            return [y
                    for y in x]


        try:
            raise ValueError(
                x,
                x)
        except ValueError as e:
            pass
        return (lambda: self)

    def 𝒻(self): pass

big = "def big(x):\n" + "    x += 1\n" * 30 + "\n" * 1000 + "    return (x,\n\n\n x.y)\n"
exec(compile(big, "/srv/заказ.py", "exec"))

def tell(code):
    if sys.version_info >= (3, 10):
        lines = {at // 2: line for start, end, line in code.co_lines() for at in range(start, end, 2)}
    else:
        starts = dict(dis.findlinestarts(code))
        line, lines = code.co_firstlineno, {}
        for at in range(0, len(code.co_code), 2):
            line = starts.get(at, line)
            lines[at // 2] = line
    name = getattr(code, "co_qualname", code.co_name)
    pairs = ",".join("%d:%s" % (at, "" if line is None else line) for at, line in lines.items())
    print("\t".join([name, code.co_filename, str(id(code)), str(code.co_firstlineno), pairs]))
    for other in code.co_consts:
        if hasattr(other, "co_code"):
            tell(other)

print(sys.version_info >= (3, 11))
import json.decoder, argparse
modules = [json.decoder, argparse]
for function in [Größe.wächst, Größe.𝒻, big, tell] + [
    value for module in modules for value in vars(module).values() if hasattr(value, "__code__")
]:
    tell(function.__code__)
print("end", flush=True)
sys.stdin.read()
"#;

/// A process that ends with the test.
struct Interpreter(Child);

impl Drop for Interpreter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Memory(fs::File);

impl ReadAt for Memory {
    fn size(&self) -> u64 {
        u64::MAX
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
}

/// What CPython is in the files that a process maps.
fn runtime_of(pid: u32) -> Option<Runtime> {
    let text = fs::read(format!("/proc/{pid}/maps")).unwrap();
    let paths = maps::parse(&text).filter_map(|line| std::str::from_utf8(line.path).ok());
    paths.filter(|path| path.contains("python")).find_map(|path| {
        let (file, _) = FileReader::open(&Host::default().in_own_root(path)).ok()?;
        Runtime::read(&file, path.rsplit('/').next()?)
    })
}

/// Compares all functions that an interpreter tells of; `None`: there is no such one.
fn compare(program: &str) -> Option<()> {
    let started = Command::new(program)
        .args(["-c", SCRIPT])
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut interpreter = Interpreter(started.ok()?);
    let output = BufReader::new(interpreter.0.stdout.take()?);
    let mut told: Vec<String> =
        output.lines().map_while(Result::ok).take_while(|line| line != "end").collect();
    // A script that stands for one that is not there.
    if told.is_empty() {
        return None;
    }
    let pid = interpreter.0.id();
    let runtime = runtime_of(pid).unwrap_or_else(|| panic!("{program} is not known"));
    let memory = Memory(fs::File::open(format!("/proc/{pid}/mem")).unwrap());
    let has_qualified_names = told.remove(0) == "True";
    assert!(told.len() > 10, "{program} told of {} functions", told.len());
    for line in told {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[name, file, address, first, lines] = &fields[..] else { panic!("{program}: {line}") };
        let code = Code::read(&memory, &runtime.version.code, address.parse().unwrap());
        let code = code.unwrap_or_else(|| panic!("{program}: {line}"));
        let found = code.line(None);
        assert_eq!((&*found.function, found.file.as_deref()), (name, Some(file)), "{program}");
        assert_eq!(found.line.to_string(), first, "{program}: {name}");
        for pair in lines.split(',').filter(|pair| !pair.is_empty()) {
            let (at, line) = pair.split_once(':').unwrap();
            let wanted = if line.is_empty() { first } else { line };
            let found = code.line(Some(at.parse().unwrap())).line.to_string();
            assert_eq!(found, wanted, "{program}: instruction {at} of {name}");
        }
    }
    assert_eq!(has_qualified_names, runtime.version.code.name == 128, "{program}");
    Some(())
}

#[test]
fn code_is_what_interpreters_say_of_it() {
    let programs =
        ["python3", "python3.9", "python3.10", "python3.11", "python3.12", "python3.13", "python3.14"];
    let missing: Vec<&str> = programs.into_iter().filter(|program| compare(program).is_none()).collect();
    if !missing.is_empty() {
        println!("skipped: there is no {}", missing.join(", "));
    }
}
