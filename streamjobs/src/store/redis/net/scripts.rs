//! Runs scripts by their digests, and loads them if the server does not know them.

use std::sync::Arc;

use futures_util::FutureExt;
use redis::{Cmd, Pipeline, Value};

use super::error::accepted;
use super::links::Link;
use crate::store::StoreError;
use crate::store::redis::reply;
use crate::store::redis::script::Script;

impl Link {
    /// Runs a script. If the server does not know it, all scripts are loaded first, so that an
    /// urgent renewal later finds its script there.
    pub(crate) async fn script(
        &self,
        script: &'static Script,
        keys: &[&str],
        add_arguments: impl FnOnce(&mut Cmd) + Send,
    ) -> Result<Value, StoreError> {
        self.script_answering(script, keys, add_arguments, 0).await
    }

    /// Runs a script whose answer may have about this many bytes.
    pub(crate) async fn script_answering(
        &self,
        script: &'static Script,
        keys: &[&str],
        add_arguments: impl FnOnce(&mut Cmd) + Send,
        bytes: usize,
    ) -> Result<Value, StoreError> {
        let digest = self.digest(script).await?;
        let mut command = redis::cmd("EVALSHA");
        command.arg(digest).arg(keys.len()).arg(keys);
        add_arguments(&mut command);
        self.run_script(&command, bytes, false).await
    }

    /// Runs a script by the command that calls it. With `is_asking`, its keys are moving to this node.
    pub(super) async fn run_script(
        &self,
        command: &Cmd,
        bytes: usize,
        is_asking: bool,
    ) -> Result<Value, StoreError> {
        let mut attempts_left = SCRIPT_ATTEMPTS_MAX - 1;
        loop {
            let answer = match is_asking {
                true => self.command_asking(command).boxed().await,
                false => self.command_answering(command, bytes).await,
            };
            match answer {
                Err(StoreError::Refused { code, .. })
                    if code == "NOSCRIPT" && attempts_left > 0 =>
                {
                    attempts_left -= 1;
                    self.load_scripts().await?;
                }
                answer => return answer,
            }
        }
    }

    /// Runs a script many times in one go; each call adds its keys and arguments. Refusals by the
    /// server are among the answers.
    pub(crate) async fn scripts(
        &self,
        script: &'static Script,
        calls: &[impl Fn(&mut Cmd) + Sync],
    ) -> Result<Vec<Value>, StoreError> {
        let digest = self.digest(script).await?;
        let mut answers = vec![Value::Nil; calls.len()];
        let mut open = calls.iter().zip(&mut answers).collect::<Vec<_>>();
        for _ in 0..SCRIPT_ATTEMPTS_MAX {
            let mut pipeline = Pipeline::with_capacity(open.len());
            for (call, _) in &open {
                let mut command = redis::cmd("EVALSHA");
                call(command.arg(digest));
                pipeline.add_command(command);
            }
            for ((_, answer), value) in open.iter_mut().zip(self.pipeline(&pipeline).await?) {
                **answer = value;
            }
            open.retain(|(_, answer)| is_forgotten(answer));
            if open.is_empty() {
                break;
            }
            self.load_scripts().await?;
        }
        Ok(answers)
    }

    pub(super) async fn digest(&self, script: &'static Script) -> Result<&'static str, StoreError> {
        if script.digest.get().is_none() {
            self.load_scripts().await?;
        }
        script.digest.get().map(String::as_str).ok_or(StoreError::Protocol { command: SCRIPT_LOAD })
    }

    /// Makes sure that the server knows all scripts. Callers that come meanwhile wait for the same
    /// request.
    pub(super) async fn load_scripts(&self) -> Result<(), StoreError> {
        let sent = self.loading().join(|| self.clone().send_scripts().boxed());
        sent.await.as_ref().as_ref().map_err(StoreError::copy).copied()
    }

    async fn send_scripts(self) -> Arc<Result<(), StoreError>> {
        Arc::new(self.try_send_scripts().await)
    }

    async fn try_send_scripts(&self) -> Result<(), StoreError> {
        let all = || self.all_scripts().iter().copied().flatten();
        let mut pipeline = Pipeline::with_capacity(all().count());
        for script in all() {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(sent_text(script.text));
        }
        let answers = match self.pipeline(&pipeline).await {
            // Loading runs no script, so nothing was changed.
            Err(StoreError::AnswerLost(cause)) => return Err(StoreError::Unreachable(cause)),
            answers => answers?,
        };
        for (script, answer) in all().zip(answers) {
            let digest = reply::text(accepted(answer)?, SCRIPT_LOAD)?;
            script.digest.get_or_init(|| digest);
        }
        Ok(())
    }
}

/// The text without comments, which are more than a third of it, and without the shared functions that
/// it does not use, which are half of the rest. Otherwise they would be sent to each server and stored
/// there.
fn sent_text(text: &str) -> String {
    let mut kept = String::new();
    // Functions are between empty lines.
    for block in text.rsplit("\n\n") {
        // Whether the kept text behind it uses the function. Its comments do not count.
        let is_used = function_name(block).is_none_or(|name| has_word(&kept, name));
        if is_used {
            kept = without_comments(block) + &kept;
        }
    }
    kept
}

/// The name of the function that a block consists of.
fn function_name(block: &str) -> Option<&str> {
    let mut lines = block.lines().skip_while(|line| line.starts_with("--"));
    let name = lines.next()?.strip_prefix("local function ")?.split('(').next()?;
    let is_whole = block.trim_end().ends_with("\nend");
    let outside = lines.filter(|line| !line.starts_with(' ') && *line != "end").count();
    (is_whole && outside == 0).then_some(name)
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.match_indices(word).any(|(start, _)| {
        let before = text.as_bytes().get(start.wrapping_sub(1)).copied();
        let after = text.as_bytes().get(start + word.len()).copied();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Leaves out the lines that are comments.
fn without_comments(text: &str) -> String {
    let is_code = |line: &&str| !line.is_empty() && !line.trim_start().starts_with("--");
    text.lines().filter(is_code).flat_map(|line| [line, "\n"]).collect()
}

fn is_forgotten(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

const SCRIPT_LOAD: &str = "SCRIPT LOAD";
/// If the server has forgotten a script this many times, it is an error.
const SCRIPT_ATTEMPTS_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_stay_here_and_code_is_sent_as_it_is() {
        let text = "-- a\nlocal a = 'x -- y'\n\n  -- b\n  return a -- c\n";
        assert_eq!(without_comments(text), "local a = 'x -- y'\n  return a -- c\n");
        let (mut all, mut sent) = (0, 0);
        for script in crate::store::redis::SCRIPTS.iter().copied().flatten() {
            assert!(!script.text.contains("--["), "{}: a comment of several lines", script.name);
            let without = sent_text(script.text);
            (all, sent) = (all + script.text.len(), sent + without.len());
        }
        assert!(sent < all / 3, "{sent} of {all} bytes");
    }

    #[test]
    fn a_function_is_sent_where_it_is_used_directly_or_by_another_one() {
        let shared = "local function a()\n  return 1\nend\n\n\
                      -- Calls a.\nlocal function b()\n  return a()\nend\n\n\
                      local function ab()\n  return 2\nend\n\nlocal C = 3\n";
        let sent = |own: &str| sent_text(&format!("{shared}{own}"));
        let functions = |own: &str| {
            let names = ["a", "b", "ab"];
            names.map(|name| sent(own).contains(&format!("local function {name}()")))
        };
        assert_eq!(functions("return C"), [false, false, false]);
        assert_eq!(functions("return b()"), [true, true, false]);
        assert_eq!(functions("return ab()"), [false, false, true]);
        assert_eq!(functions("-- Other scripts call b.\nreturn ab()"), [false, false, true]);
        assert!(sent("return C").ends_with("local C = 3\nreturn C\n"));
        // Each script still contains each function that it calls.
        for script in crate::store::redis::SCRIPTS.iter().copied().flatten() {
            let text = sent_text(script.text);
            let all = script.text.split("local function ").skip(1);
            let names = all.filter_map(|rest| rest.split('(').next());
            for name in names.filter(|name| text.contains(&format!("{name}("))) {
                let is_there = text.contains(&format!("function {name}("));
                assert!(is_there || !has_word(&text, name), "{}: {name}", script.name);
            }
        }
    }
}
