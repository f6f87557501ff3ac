//! Requests to the node of a cluster to which a slot is moving.

use redis::{Arg, Pipeline};

/// The commands with `ASKING` in front of each, and for each command of the result, whether it was added. One `ASKING`
/// applies to one command, or to a whole transaction.
pub(crate) fn asking(pipeline: &Pipeline) -> (Pipeline, Vec<bool>) {
    let (mut asking, mut is_added) = (Pipeline::with_capacity(2 * pipeline.len()), Vec::new());
    let mut in_transaction = false;
    for command in pipeline.cmd_iter() {
        if !in_transaction {
            asking.cmd("ASKING");
            is_added.push(true);
        }
        in_transaction = match command.args_iter().next() {
            Some(Arg::Simple(b"MULTI")) => true,
            Some(Arg::Simple(b"EXEC")) => false,
            _ => in_transaction,
        };
        asking.add_command(command.clone());
        is_added.push(false);
    }
    (asking, is_added)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_and_each_transaction_is_asked_for() {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("XACK").cmd("MULTI").cmd("XACK").cmd("XDEL").cmd("EXEC").cmd("XADD");
        let (asking, is_added) = asking(&pipeline);
        let names = asking.cmd_iter().map(|command| match command.args_iter().next() {
            Some(Arg::Simple(name)) => String::from_utf8(name.to_vec()).unwrap(),
            _ => panic!("a command has a name"),
        });
        let expected = "ASKING XACK ASKING MULTI XACK XDEL EXEC ASKING XADD";
        assert_eq!(names.collect::<Vec<_>>().join(" "), expected);
        assert_eq!(is_added.iter().filter(|is_added| **is_added).count(), 3);
        assert!(is_added[0] && !is_added[1] && is_added[2] && !is_added[3]);
    }
}
