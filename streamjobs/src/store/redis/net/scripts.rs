//! Runs scripts by their digests, and loads them where the server does not know them.

use redis::{Cmd, Pipeline, Value};

use super::error::accepted;
use super::links::Link;
use crate::store::StoreError;
use crate::store::redis::reply;
use crate::store::redis::script::Script;

impl Link {
    /// Runs a script. If the server does not know it, all scripts are loaded first, so that an
    /// urgent renewal finds its own there.
    pub(crate) async fn script(
        &self,
        script: &'static Script,
        keys: &[&str],
        add_arguments: impl FnOnce(&mut Cmd) + Send,
    ) -> Result<Value, StoreError> {
        self.script_answering(script, keys, add_arguments, 0).await
    }

    /// Runs a script whose answer may have about so many bytes.
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
        for _ in 1..SCRIPT_ATTEMPTS_MAX {
            match self.command_answering(&command, bytes).await {
                Err(StoreError::Refused { code, .. }) if code == "NOSCRIPT" => {
                    self.load_scripts().await?;
                }
                answer => return answer,
            }
        }
        self.command_answering(&command, bytes).await
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

    async fn digest(&self, script: &'static Script) -> Result<&'static str, StoreError> {
        if script.digest.get().is_none() {
            self.load_scripts().await?;
        }
        script.digest.get().map(String::as_str).ok_or(StoreError::Protocol { command: SCRIPT_LOAD })
    }

    async fn load_scripts(&self) -> Result<(), StoreError> {
        let all = || self.all_scripts().iter().copied().flatten();
        let mut pipeline = Pipeline::with_capacity(all().count());
        for script in all() {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(without_comments(script.text));
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

/// Leaves out the lines that are comments, which are more than a third of the text: each server
/// would be sent them, and would store them.
fn without_comments(text: &str) -> String {
    let is_code = |line: &&str| !line.is_empty() && !line.trim_start().starts_with("--");
    text.lines().filter(is_code).flat_map(|line| [line, "\n"]).collect()
}

fn is_forgotten(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

const SCRIPT_LOAD: &str = "SCRIPT LOAD";
/// After this many attempts, a script that the server keeps forgetting is an error.
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
            let without = without_comments(script.text);
            (all, sent) = (all + script.text.len(), sent + without.len());
        }
        assert!(sent < all * 2 / 3, "{sent} of {all} bytes");
    }
}
