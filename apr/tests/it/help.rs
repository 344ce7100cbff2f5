//! The help texts: the first thing a user reads, so a change of one is seen in review.

use super::program::output;

/// Every command with the arguments that lead to it.
const COMMANDS: &[&[&str]] = &[
    &["qa"],
    &["qa", "list"],
    &["qa", "coverage"],
    &["qa", "schema"],
    &["run"],
    &["validate"],
    &["check"],
    &["score"],
    &["bench"],
    &["profile"],
    &["rosetta"],
    &["rosetta", "compare-inference"],
    &["rosetta", "diff"],
    &["rosetta", "fingerprint"],
    &["rosetta", "verify"],
    &["rosetta", "chain"],
    &["inspect"],
    &["tensors"],
    &["convert"],
    &["import"],
    &["export"],
    &["quantize"],
    &["report"],
    &["schema"],
    &["explain"],
    &["completions"],
    &["man"],
];

#[test]
fn the_help_names_every_command_and_exit_code() {
    insta::assert_snapshot!("help", output(&["--help"]));
}

#[test]
fn every_command_has_help() {
    for command in COMMANDS {
        let mut arguments = command.to_vec();
        arguments.push("--help");
        insta::assert_snapshot!(format!("help-{}", command.join("-")), output(&arguments));
    }
}

#[test]
fn the_list_of_commands_in_this_file_is_whole() {
    let help = output(&["--help"]);
    let listed = commands(&help);
    let known: Vec<&str> = COMMANDS.iter().filter(|c| c.len() == 1).map(|c| c[0]).collect();
    assert_eq!(listed, known);
}

#[test]
fn the_readme_shows_only_commands_that_exist() {
    let readme = std::fs::read_to_string(super::program::root().join("README.md")).expect("README");
    let help = output(&["--help"]);
    let known = commands(&help);
    let mut seen = 0;
    for line in readme.lines().filter_map(|line| line.strip_prefix("$ apr ")) {
        let command = line.split_whitespace().next().unwrap_or_default();
        assert!(known.contains(&command), "README: apr {command} does not exist");
        let own = output(&[command, "--help"]);
        for option in line.split('#').next().unwrap_or_default().split_whitespace() {
            if option.starts_with("--") {
                assert!(own.contains(option), "README: apr {command} has no {option}");
            }
        }
        seen += 1;
    }
    assert!(seen >= 5, "only {seen} commands found in README.md");
}

/// The commands that a help text lists, without `help` itself.
fn commands(help: &str) -> Vec<&str> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect()
}
