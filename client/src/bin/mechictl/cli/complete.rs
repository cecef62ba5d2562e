//! Completion: what could come next on a half-typed line, and the scripts by which shells ask.

use super::find;
use crate::output::{complain, out};
use crate::program::Program;

/// The hidden command that the scripts call with the line's words, the last of them half-typed.
pub(crate) const COMMAND: &str = "__complete";

/// Prints the candidates with their descriptions, and cobra's directive "no files".
pub(crate) fn print(program: &Program, words: &[Vec<u8>]) {
    out(candidates(program, words).iter().map(|line| format!("{line}\n")).collect::<String>() + ":4\n");
    complain("Completion ended with directive: ShellCompDirectiveNoFileComp");
}

fn candidates(program: &Program, words: &[Vec<u8>]) -> Vec<String> {
    let Some((typed, before)) = words.split_last() else { return Vec::new() };
    let typed = String::from_utf8_lossy(typed);
    let Ok((path, rest)) = find::find(program.root, program.name, before) else { return Vec::new() };
    let mut found = Vec::new();
    if typed.starts_with('-') {
        for flag in find::flags(&path) {
            let help = if flag.name == "help" {
                format!("help for {}", path.last().map_or("", |c| c.name))
            } else {
                flag.help.into()
            };
            found.push((format!("--{}", flag.name), help));
        }
    } else if rest.iter().all(|word| word.starts_with(b"-")) {
        let command = path.last().expect("the root is there");
        found.extend(command.children.iter().map(|child| (child.name.to_owned(), child.short.to_owned())));
    }
    found.retain(|(name, _)| name.starts_with(&*typed));
    found.sort();
    found.into_iter().map(|(name, help)| format!("{name}\t{help}")).collect()
}

/// The script for a shell; `None` for one that is not known.
pub(crate) fn script(shell: &str, program: &str) -> Option<String> {
    let script = match shell {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        _ => return None,
    };
    Some(script.replace("PROGRAM", program))
}

const BASH: &str = r#"# bash completion for PROGRAM: source <(PROGRAM completion bash)
_PROGRAM() {
    local words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    local line candidates=()
    while IFS= read -r line; do
        [[ $line == :* ]] || candidates+=("${line%%$'\t'*}")
    done < <("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null)
    COMPREPLY=("${candidates[@]}")
}
complete -o default -F _PROGRAM PROGRAM
"#;

const ZSH: &str = r#"#compdef PROGRAM
_PROGRAM() {
    local line candidates=()
    while IFS= read -r line; do
        [[ $line == :* ]] || candidates+=("${${line//:/\\:}/$'\t'/:}")
    done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    (( $#candidates )) && _describe -o 'PROGRAM' candidates || _files
}
compdef _PROGRAM PROGRAM
"#;

const FISH: &str = r#"# fish completion for PROGRAM: PROGRAM completion fish | source
function __PROGRAM_candidates
    set -l words (commandline -opc)
    $words[1] __complete $words[2..] (commandline -ct) 2>/dev/null | string match -v ':*'
end
complete -c PROGRAM -f -a '(__PROGRAM_candidates)'
"#;
