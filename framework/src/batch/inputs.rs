//! Lists of commands: one a line, as JSON objects, or one line of a template for each input.
//!
//! # Invariant
//! No byte of an input is ever read by a shell as part of the command: inputs travel in the
//! environment (`EBB_INPUT`, `EBB_INPUT_<FIELD>`), and the template's places become references to it.

use ebb_types::limits::MAX_COMMAND_BYTES;
use serde_json::{Map, Value};

use super::config::{BatchCommand, MAX_COMMANDS};
use crate::command::{CommandSpec, Program};

/// The variable that holds the whole input.
const INPUT_VARIABLE: &str = "EBB_INPUT";
/// Longest display name that is taken from an input, in bytes.
const MAX_SHOWN_BYTES: usize = 120;

/// Why a list of commands or a template could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// A line of the list.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The template.
    #[error("the template {problem}")]
    Template {
        /// What is wrong and what to do.
        problem: String,
    },
}

/// Reads a list of commands, one a line for the shell; empty lines and those that start with `#` are
/// left out.
///
/// # Errors
/// When a line is too long or there are too many.
pub fn parse_lines(text: &str) -> Result<Vec<BatchCommand>, InputError> {
    let lines = lines(text).filter(|(_, line)| !line.starts_with('#'));
    collect(lines, |line| {
        Ok(BatchCommand {
            name: shown(line),
            command: CommandSpec::shell(line),
        })
    })
}

/// Reads a list of commands as JSON, one object a line: `{"command": "…"}` for the shell or
/// `{"argv": ["…"]}`, and optionally `name`, `env` (an object of texts) and `user`.
///
/// # Errors
/// When a line is no such object.
pub fn parse_json_lines(text: &str) -> Result<Vec<BatchCommand>, InputError> {
    collect(lines(text), |line| {
        let object: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| format!("is no JSON object: {error}"))?;
        from_object(object)
    })
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty())
}

fn collect<'a>(
    lines: impl Iterator<Item = (usize, &'a str)>,
    read: impl Fn(&str) -> Result<BatchCommand, String>,
) -> Result<Vec<BatchCommand>, InputError> {
    let mut commands = Vec::new();
    for (line, text) in lines {
        if commands.len() >= MAX_COMMANDS {
            let problem = format!("is one too many; a batch has at most {MAX_COMMANDS} commands");
            return Err(InputError::Line { line, problem });
        }
        let command = within_limits(text)
            .and_then(|()| read(text))
            .map_err(|problem| InputError::Line { line, problem })?;
        commands.push(command);
    }
    Ok(commands)
}

fn within_limits(text: &str) -> Result<(), String> {
    if text.len() > MAX_COMMAND_BYTES {
        let len = text.len();
        return Err(format!(
            "is {len} bytes long; at most {MAX_COMMAND_BYTES} are allowed"
        ));
    }
    if text.contains('\0') {
        return Err("holds a NUL byte, which no program could be given; remove it".to_owned());
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_SHOWN_BYTES)].to_owned()
}

fn from_object(mut object: Map<String, Value>) -> Result<BatchCommand, String> {
    let program = match (object.remove("command"), object.remove("argv")) {
        (Some(Value::String(line)), None) => Program::Shell(line),
        (None, Some(Value::Array(words))) => Program::Exec(argv(words)?),
        (None, None) => {
            return Err(
                "has neither \"command\" (a text) nor \"argv\" (a list of texts)".to_owned(),
            );
        }
        (Some(_), Some(_)) => return Err("has both \"command\" and \"argv\"; keep one".to_owned()),
        _ => {
            return Err(
                "must have a text as \"command\" or a list of texts as \"argv\"".to_owned(),
            );
        }
    };
    let name = optional_text(&mut object, "name")?;
    let user = optional_text(&mut object, "user")?;
    let environment = match object.remove("env") {
        None => Vec::new(),
        Some(Value::Object(variables)) => environment(variables)?,
        Some(_) => return Err("\"env\" must be an object of texts".to_owned()),
    };
    if let Some(key) = object.keys().next() {
        return Err(format!(
            "has the unknown key {key:?}; known are command, argv, name, env and user"
        ));
    }
    let of_program = match &program {
        Program::Shell(line) => line.clone(),
        Program::Exec(words) => words.join(" "),
    };
    Ok(BatchCommand {
        name: shown(&name.unwrap_or(of_program)),
        command: CommandSpec {
            program,
            environment,
            user,
            warn_signal: None,
        },
    })
}

fn argv(words: Vec<Value>) -> Result<Vec<String>, String> {
    let words: Vec<String> = words
        .into_iter()
        .map(|word| match word {
            Value::String(word) if !word.contains('\0') => Ok(word),
            other => Err(format!(
                "\"argv\" holds {other}, which is no text without NUL"
            )),
        })
        .collect::<Result<_, _>>()?;
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words),
        _ => Err("\"argv\" names no program; its first text is the program".to_owned()),
    }
}

fn optional_text(object: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match object.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{key:?} is {other}; it must be a text")),
    }
}

fn environment(variables: Map<String, Value>) -> Result<Vec<(String, String)>, String> {
    variables
        .into_iter()
        .map(|(name, value)| match value {
            Value::String(_) if name.is_empty() || name.contains(['=', '\0']) => Err(format!(
                "\"env\" holds the name {name:?}; a name is not empty and has no '='"
            )),
            Value::String(value) => Ok((name, value)),
            other => Err(format!(
                "the variable {name:?} is {other}; it must be a text"
            )),
        })
        .collect()
}

/// Where in a shell's line a place stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Nothing,
    Single,
    Double,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// `{}`, or `{name}` if the input has such a field; else the text as it stands.
    Place {
        field: Option<String>,
        within: Within,
    },
}

/// A command line with places for inputs: `{}` for the whole input, `{name}` for a field of it. A
/// place may stand bare or within double quotes; `\{\}` is no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When `{}` stands within single quotes, or there is no place at all.
    pub fn new(line: &str) -> Result<Self, InputError> {
        let problem = |problem: String| InputError::Template { problem };
        within_limits(line).map_err(problem)?;
        let parts = parts(line);
        let mut places = parts.iter().filter_map(|part| match part {
            Part::Place { field, within } => Some((field, within)),
            Part::Text(_) => None,
        });
        if places.clone().next().is_none() {
            return Err(problem(
                "has no place for the input; write {} where it belongs".to_owned(),
            ));
        }
        if places.any(|(field, within)| field.is_none() && *within == Within::Single) {
            return Err(problem(in_single_quotes("{}", INPUT_VARIABLE)));
        }
        Ok(Self { parts })
    }

    /// One command for each line of inputs: a text for `{}`, or a JSON object whose fields `{name}`
    /// names. Empty lines are left out.
    ///
    /// # Errors
    /// When an object has none of the fields that the template names, or a line is too long.
    pub fn fill(&self, inputs: &str) -> Result<Vec<BatchCommand>, InputError> {
        collect(lines(inputs), |input| self.fill_one(input))
    }

    fn fill_one(&self, input: &str) -> Result<BatchCommand, String> {
        let fields = if input.starts_with('{') {
            serde_json::from_str::<Map<String, Value>>(input).unwrap_or_default()
        } else {
            Map::new()
        };
        let mut line = String::new();
        let mut environment = vec![(INPUT_VARIABLE.to_owned(), input.to_owned())];
        let mut used = 0;
        for part in &self.parts {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Place {
                    field: None,
                    within,
                } => {
                    used += 1;
                    refer(&mut line, INPUT_VARIABLE, *within);
                }
                Part::Place {
                    field: Some(field),
                    within,
                } => match fields.get(field) {
                    None => line.push_str(&format!("{{{field}}}")),
                    Some(value) => {
                        used += 1;
                        let variable = format!("{INPUT_VARIABLE}_{}", field.to_uppercase());
                        if *within == Within::Single {
                            return Err(in_single_quotes(&format!("{{{field}}}"), &variable));
                        }
                        refer(&mut line, &variable, *within);
                        if environment.iter().all(|(name, _)| *name != variable) {
                            environment.push((variable, plain(value)?));
                        }
                    }
                },
            }
        }
        if used == 0 {
            return Err(
                "fills no place of the template; it lacks the fields that {name} names".to_owned(),
            );
        }
        within_limits(&line)?;
        let name = fields.get("name").and_then(Value::as_str).unwrap_or(input);
        Ok(BatchCommand {
            name: shown(name),
            command: CommandSpec {
                program: Program::Shell(line),
                environment,
                user: None,
                warn_signal: None,
            },
        })
    }
}

fn in_single_quotes(place: &str, variable: &str) -> String {
    format!(
        "has {place} within single quotes, where nothing can be filled in safely; use double quotes, \
         or \"${variable}\" in what the quotes hand on"
    )
}

fn refer(line: &mut String, variable: &str, within: Within) {
    let quote = if within == Within::Double { "" } else { "\"" };
    line.push_str(&format!("{quote}${{{variable}}}{quote}"));
}

/// A field's value as a text.
fn plain(value: &Value) -> Result<String, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    within_limits(&text).map(|()| text)
}

/// Splits a template into texts and places, following the shell's quotes.
fn parts(line: &str) -> Vec<Part> {
    let (mut parts, mut text, mut within) = (Vec::new(), String::new(), Within::Nothing);
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let referred = text.ends_with('$');
        if let Some((field, after)) = place(rest).filter(|_| !referred) {
            parts.push(Part::Text(std::mem::take(&mut text)));
            parts.push(Part::Place { field, within });
            rest = after;
            continue;
        }
        let mut taken = c.len_utf8();
        match (within, c) {
            (Within::Nothing | Within::Double, '\\') => {
                taken += rest[1..].chars().next().map_or(0, char::len_utf8);
            }
            (Within::Nothing, '\'') => within = Within::Single,
            (Within::Nothing, '"') => within = Within::Double,
            (Within::Single, '\'') | (Within::Double, '"') => within = Within::Nothing,
            _ => {}
        }
        text.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    parts.push(Part::Text(text));
    parts
}

/// The place that a text starts with, and what follows it.
fn place(text: &str) -> Option<(Option<String>, &str)> {
    let (inside, after) = text.strip_prefix('{')?.split_once('}')?;
    let starts_well = !inside.starts_with(|c: char| c.is_ascii_digit());
    let is_name = inside
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '_')
        && starts_well;
    is_name.then(|| ((!inside.is_empty()).then(|| inside.to_owned()), after))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn line_of(command: &BatchCommand) -> &str {
        match &command.command.program {
            Program::Shell(line) => line,
            Program::Exec(_) => "",
        }
    }

    fn shell(command: &BatchCommand) -> String {
        let output = Command::new("/bin/sh")
            .args(["-c", line_of(command)])
            .env_clear()
            .envs(command.command.environment.iter().cloned())
            .output()
            .expect("a shell");
        String::from_utf8(output.stdout).expect("text")
    }

    #[test]
    fn comments_and_empty_lines_are_no_commands() {
        let commands = parse_lines("# first\n\n echo a \n\t\necho b # kept\n").expect("valid");
        let lines: Vec<_> = commands.iter().map(line_of).collect();
        assert_eq!(lines, ["echo a", "echo b # kept"]);
    }

    #[test]
    fn a_json_command_names_what_is_wrong_with_it() {
        let good =
            r#"{"argv": ["ls", "-l"], "name": "list", "env": {"A": "b c"}, "user": "nobody"}"#;
        let commands = parse_json_lines(good).expect("valid");
        assert_eq!(commands[0].name, "list");
        assert_eq!(
            commands[0].command.environment,
            [("A".into(), "b c".into())]
        );
        for (bad, part) in [
            ("[]", "no JSON object"),
            ("{}", "neither"),
            (r#"{"command": 3}"#, "must have a text"),
            (r#"{"command": "a", "argv": ["b"]}"#, "both"),
            (r#"{"argv": []}"#, "names no program"),
            (
                r#"{"command": "a", "comand": "b"}"#,
                "unknown key \"comand\"",
            ),
            (r#"{"command": "a", "env": {"A": 1}}"#, "must be a text"),
            (r#"{"command": "a", "env": {"A=B": "1"}}"#, "no '='"),
        ] {
            let error = parse_json_lines(&format!("{good}\n{bad}")).expect_err(bad);
            assert!(
                error.to_string().starts_with("line 2: ") && error.to_string().contains(part),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn named_places_take_fields_and_leave_other_braces_alone() {
        let template = Template::new("echo {who} | awk '{print}' && echo ${HOME} {a,b} \\{\\}")
            .expect("valid");
        let commands = template
            .fill(r#"{"who": "a; b", "name": "n"}"#)
            .expect("filled");
        assert_eq!(commands[0].name, "n");
        assert!(line_of(&commands[0]).contains("awk '{print}' && echo ${HOME} {a,b} \\{\\}"));
        assert!(shell(&commands[0]).starts_with("a; b\n"));
        let error = template
            .fill(r#"{"whom": "x"}"#)
            .expect_err("lacks the field");
        assert!(error.to_string().contains("lacks the fields"), "{error}");
    }

    #[test]
    fn a_place_in_single_quotes_is_refused_with_what_to_do() {
        let error = Template::new("sh -c 'echo {}'").expect_err("unsafe");
        assert!(error.to_string().contains("\"$EBB_INPUT\""), "{error}");
        let named = Template::new("sh -c 'echo {a}'").expect("not known to be a place yet");
        assert!(named.fill(r#"{"a": "b"}"#).is_err());
        assert!(Template::new("echo").is_err(), "no place at all");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_input_is_ever_read_by_the_shell(input in "[ -~]{1,40}") {
            let input = input.trim();
            prop_assume!(!input.is_empty() && !input.starts_with('{'));
            let template = Template::new(r#"printf '%s\n' {} "<{}>""#).expect("valid");
            let commands = template.fill(input).expect("filled");
            prop_assert_eq!(shell(&commands[0]), format!("{input}\n<{input}>\n"));
        }

        #[test]
        fn no_template_makes_the_reader_panic(line in "\\PC{0,60}") {
            if let Ok(template) = Template::new(&line) {
                let _ = template.fill("x");
            }
        }
    }
}
