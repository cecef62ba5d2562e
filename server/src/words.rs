//! The words after a sub-command's name: help, what they ask for, or what is wrong with them.

use std::fmt::Display;
use std::process::ExitCode;

/// etcd's exit code for a malformed flag.
const USAGE_CODE: u8 = 2;

/// Reads the words of a sub-command by `parse`.
///
/// - Shape: words behind `--` are for somebody else, a wish for help among them too.
/// - Errors: the exit code to end with; help, or what is wrong and `usage`, is printed then.
pub fn read<T, E: Display>(
    words: &[String],
    usage: &str,
    parse: impl FnOnce(&[String]) -> Result<T, E>,
) -> Result<T, ExitCode> {
    if words.iter().take_while(|word| *word != "--").any(|word| ["-h", "--help", "-help"].contains(&word.as_str())) {
        print!("{usage}");
        return Err(ExitCode::SUCCESS);
    }
    parse(words).map_err(|error| {
        eprint!("{error}\n\n{usage}");
        ExitCode::from(USAGE_CODE)
    })
}
