//! `ebpf-otlp completions`: scripts for shells, from the definitions of the commands.

use std::fmt::Write;

use collector::tracer::TRACERS;

use super::args::Shell;
use super::args::definition::{COMMANDS, Definition, Hint, Opt, SHELLS};
use super::{CliResult, print};

/// Prints what completes in that shell.
pub fn run(shell: Shell) -> CliResult {
    print(&script(shell))
}

fn script(shell: Shell) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = match shell {
        Shell::Bash => bash(&mut text),
        Shell::Zsh => zsh(&mut text),
        Shell::Fish => fish(&mut text),
    };
    text
}

/// Names that `--only` takes.
fn tracers(command: &Definition) -> Vec<&'static str> {
    let of_command = TRACERS.iter().filter(|info| command.name == "run" || info.command == command.name);
    of_command.map(|info| info.name).collect()
}

/// The words of a value that there is a list of.
fn words(command: &Definition, hint: Hint) -> String {
    match hint {
        Hint::Tracer => tracers(command).join(" "),
        Hint::Shell => SHELLS.join(" "),
        Hint::Free | Hint::File | Hint::Directory | Hint::Process => String::new(),
    }
}

/// The beginning of a text, for a line beside others.
fn short(text: &str) -> String {
    let end = ["; ", " (", ", as "].iter().filter_map(|end| text.find(end)).min().unwrap_or(text.len());
    text.get(..end).unwrap_or(text).replace('`', "")
}

const BASH_HEAD: &str = r#"# Completions of ebpf-otlp for bash.
_ebpf_otlp() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local commands= options= files= directories= processes= free= lists= words= operands=
    # `--option=value` comes as three words.
    [ "$prev" != = ] || prev=${COMP_WORDS[COMP_CWORD-2]}
    [ "$cur" != = ] || cur=
    case ${COMP_WORDS[1]} in
"#;
const BASH_TAIL: &str = r#"    esac
    local is="* $prev *" first=
    if [ "$COMP_CWORD" = 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
    elif [[ " $files " == $is ]]; then
        compopt -o filenames 2> /dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    elif [[ " $directories " == $is ]]; then
        compopt -o filenames 2> /dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur")
    elif [[ " $processes " == $is ]]; then
        mapfile -t COMPREPLY < <(cd /proc && compgen -G "$cur*" | grep -x '[0-9]*')
    elif [[ " $lists " == $is ]]; then
        [[ $cur != *,* ]] || first=${cur%,*},
        mapfile -t COMPREPLY < <(compgen -P "$first" -W "$words" -- "${cur##*,}")
    elif [[ " $free " == $is ]]; then
        COMPREPLY=()
    elif [[ $cur == -* || -z $operands ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options --help" -- "$cur")
    elif [ "$operands" = file ]; then
        compopt -o filenames 2> /dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    else
        mapfile -t COMPREPLY < <(compgen -W "$operands" -- "$cur")
    fi
}
complete -F _ebpf_otlp ebpf-otlp
"#;

fn bash(to: &mut String) -> std::fmt::Result {
    to.push_str(BASH_HEAD);
    for command in &COMMANDS {
        let of = |wanted: &dyn Fn(&Opt) -> bool| {
            let names: Vec<_> =
                command.options.iter().filter(|option| wanted(option)).map(|option| option.name).collect();
            names.join(" ")
        };
        write!(to, "        {}) options='{}'", command.name, of(&|_| true))?;
        for (variable, hint) in [
            ("files", Hint::File),
            ("directories", Hint::Directory),
            ("processes", Hint::Process),
            ("free", Hint::Free),
            ("lists", Hint::Tracer),
        ] {
            let names = of(&|option| !option.value.is_empty() && option.hint == hint);
            if !names.is_empty() {
                write!(to, " {variable}='{names}'")?;
            }
        }
        if command.options.iter().any(|option| option.hint == Hint::Tracer) {
            write!(to, " words='{}'", tracers(command).join(" "))?;
        }
        match command.operands.as_ref().map(|operands| operands.hint) {
            Some(Hint::File) => to.push_str(" operands=file"),
            Some(hint) => write!(to, " operands='{}'", words(command, hint))?,
            None => {}
        }
        to.push_str(" ;;\n");
    }
    let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
    write!(to, "        *) commands='{} help --help --version' ;;\n{BASH_TAIL}", names.join(" "))
}

/// In single quotes, for zsh.
fn zsh_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn zsh_action(command: &Definition, hint: Hint) -> String {
    match hint {
        Hint::Free => String::new(),
        Hint::File => "_files".to_owned(),
        Hint::Directory => "_files -/".to_owned(),
        Hint::Process => "_pids".to_owned(),
        Hint::Tracer => format!("_sequence compadd - {}", words(command, hint)),
        Hint::Shell => format!("({})", words(command, hint)),
    }
}

fn zsh(to: &mut String) -> std::fmt::Result {
    to.push_str("#compdef ebpf-otlp\n# Completions of ebpf-otlp for zsh.\n_ebpf-otlp() {\n");
    to.push_str("  local curcontext=$curcontext state line\n  local -a commands=(\n");
    for command in &COMMANDS {
        writeln!(to, "    {}", zsh_quoted(&format!("{}:{}", command.name, command.about)))?;
    }
    to.push_str("  )\n  _arguments -C '(-h --help)'{-h,--help}'[what there is]' '(-V --version)'{-V,--version}'[which it is]' \\\n");
    to.push_str(
        "    '1: :->command' '*:: :->rest'\n  case $state in\n    command) _describe command commands ;;\n",
    );
    to.push_str("    rest)\n      case $words[1] in\n");
    for command in &COMMANDS {
        write!(to, "        {}) _arguments '(-h --help)'{{-h,--help}}'[what it does]'", command.name)?;
        for option in command.options {
            let repeated = if option.repeatable { "*" } else { "" };
            let about = short(option.help).replace('[', r"\[").replace(']', r"\]");
            let value = if option.value.is_empty() {
                String::new()
            } else {
                format!(":{}:{}", option.value, zsh_action(command, option.hint))
            };
            let assigned = if option.value.is_empty() { "" } else { "=" };
            let spec = format!("{repeated}{}{assigned}[{about}]{value}", option.name);
            write!(to, " \\\n          {}", zsh_quoted(&spec))?;
        }
        if let Some(operands) = &command.operands {
            let many = if operands.name.ends_with("...") { "*" } else { "1" };
            let name = operands.name.trim_end_matches('.');
            let spec = format!("{many}:{name}:{}", zsh_action(command, operands.hint));
            write!(to, " \\\n          {}", zsh_quoted(&spec))?;
        }
        to.push_str(" ;;\n");
    }
    // Sourced, the script defines the function; from $fpath, it is the function.
    to.push_str("      esac ;;\n  esac\n}\n");
    to.push_str("if [ \"$funcstack[1]\" = _ebpf-otlp ]; then _ebpf-otlp \"$@\"; else compdef _ebpf-otlp ebpf-otlp; fi\n");
    Ok(())
}

/// In single quotes, for fish.
fn fish_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

/// How fish completes a value.
fn fish_value(command: &Definition, hint: Hint) -> String {
    match hint {
        Hint::Free => " -x".to_owned(),
        Hint::File => " -r -F".to_owned(),
        Hint::Directory => " -x -a '(__fish_complete_directories)'".to_owned(),
        Hint::Process => " -x -a '(__fish_complete_pids)'".to_owned(),
        Hint::Tracer | Hint::Shell => format!(" -x -a '{}'", words(command, hint)),
    }
}

fn fish(to: &mut String) -> std::fmt::Result {
    to.push_str("# Completions of ebpf-otlp for fish.\ncomplete -c ebpf-otlp -f\n");
    to.push_str("complete -c ebpf-otlp -s h -l help -d 'what there is'\n");
    to.push_str("complete -c ebpf-otlp -n __fish_use_subcommand -s V -l version -d 'which it is'\n");
    for command in &COMMANDS {
        let about = fish_quoted(command.about);
        writeln!(to, "complete -c ebpf-otlp -n __fish_use_subcommand -a {} -d {about}", command.name)?;
    }
    // What several commands have is said once.
    let mut said: Vec<(String, Vec<&str>)> = Vec::new();
    let mut say = |rest: String, command| match said.iter_mut().find(|(known, _)| *known == rest) {
        Some((_, commands)) => commands.push(command),
        None => said.push((rest, vec![command])),
    };
    for command in &COMMANDS {
        for option in command.options {
            let value =
                if option.value.is_empty() { String::new() } else { fish_value(command, option.hint) };
            let name = option.name.trim_start_matches('-');
            say(format!("-l {name}{value} -d {}", fish_quoted(&short(option.help))), command.name);
        }
        match command.operands.as_ref().map(|operands| operands.hint) {
            Some(Hint::File) => say("-F".to_owned(), command.name),
            Some(hint) => say(format!("-a '{}'", words(command, hint)), command.name),
            None => {}
        }
    }
    for (rest, commands) in said {
        writeln!(to, "complete -c ebpf-otlp -n '__fish_seen_subcommand_from {}' {rest}", commands.join(" "))?;
    }
    Ok(())
}
