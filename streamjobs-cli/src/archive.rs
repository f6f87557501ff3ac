//! `streamjobs archive`: list, show and redrive dead letters in Postgres.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use streamjobs::dead_letter::Reason;
use streamjobs_postgres::letters::{
    ArchivedLetter, DeadLetters, LetterId, LetterState, Redrive, RedriveId, Request, Selection,
};
use streamjobs_postgres::{Postgres, SchemaName};

use crate::action::{distinct, planned};
use crate::arguments::{
    Archive, ArchiveFilter, ArchiveList, ArchiveRedrive, ArchiveState, Arguments, Database,
};
use crate::output::{Output, cut, print_note, time};
use crate::{Exit, Failure, attempts, connect, fields, watch};

/// Only a redrive connects to the server of the streams.
pub(crate) async fn run(
    arguments: &Arguments,
    command: &Archive,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let letters = open(command.database()).await?.dead_letters();
    let round = async |output: &mut Output| run_once(arguments, &letters, command, output).await;
    match arguments.watch {
        Some(every) => watch::run(every, output, round).await,
        None => round(output).await,
    }
}

async fn run_once(
    arguments: &Arguments,
    letters: &DeadLetters,
    command: &Archive,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command {
        Archive::List(command) => list(letters, command, output).await?,
        Archive::Show(command) => {
            let letter = letters.get(command.id).await?;
            let unknown = || format!("the archive has no dead letter {}", command.id);
            show(&letter.ok_or_else(unknown)?, output)?;
        }
        Archive::Redrive(command) => return redrive(arguments, letters, command, output).await,
    }
    Ok(Exit::Ok)
}

async fn open(database: &Database) -> Result<Postgres, Failure> {
    let failed = |error| format!("cannot connect to the database: {error}");
    let options = database.database.parse::<PgConnectOptions>().map_err(failed)?;
    check_tls(&options)?;
    let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(CONNECT_MAX);
    let pool = pool.connect_with(options).await.map_err(failed)?;
    let schema = SchemaName::new(&*database.schema)?;
    // A user who only reads the archive may have fewer rights than the program that fills it.
    Ok(Postgres::builder(pool).schema(schema).partial_rights().open().await?)
}

/// Without the feature, an address that requires TLS gets no connection.
fn check_tls(options: &PgConnectOptions) -> Result<(), Failure> {
    use PgSslMode::{Require, VerifyCa, VerifyFull};

    let is_required = matches!(options.get_ssl_mode(), Require | VerifyCa | VerifyFull);
    match is_required && !cfg!(feature = "tls") {
        true => Err("sslmode of the database needs the feature `tls` of streamjobs-cli".into()),
        false => Ok(()),
    }
}

fn selection(filter: &ArchiveFilter) -> Selection {
    let ArchiveFilter { stream, group, event_type, reason, kind, error } = filter;
    let mut selection = Selection::new();
    if let Some(stream) = stream {
        selection = selection.stream(stream);
    }
    if let Some(group) = group {
        selection = selection.group(group);
    }
    if let Some(event_type) = event_type {
        selection = selection.event_type(event_type);
    }
    if let Some(reason) = reason.as_deref().and_then(reason_of) {
        selection = selection.reason(reason);
    }
    if let Some(kind) = kind {
        selection = selection.fingerprint(kind);
    }
    if let Some(error) = error {
        selection = selection.error_contains(error);
    }
    selection
}

/// The arguments accept no other words.
fn reason_of(word: &str) -> Option<Reason> {
    let all = [
        Reason::Exhausted,
        Reason::Rejected,
        Reason::Undecodable,
        Reason::Crashed,
        Reason::Trimmed,
        Reason::Unhandled,
        Reason::Expired,
        Reason::Cancelled,
    ];
    all.into_iter().find(|reason| reason.as_str() == word)
}

async fn list(
    letters: &DeadLetters,
    command: &ArchiveList,
    output: &mut Output,
) -> Result<(), Failure> {
    let state = match command.state {
        ArchiveState::Open => LetterState::Open,
        ArchiveState::Redriven => LetterState::Redriven,
        ArchiveState::KnownDone => LetterState::KnownDone,
        ArchiveState::All => LetterState::All,
    };
    let selected = selection(&command.filter).state(state);
    let page = letters.list(&selected, command.before, usize::try_from(command.limit)?).await?;
    if output.is_json() {
        let letters = page.letters.iter().map(summary).collect::<Vec<_>>();
        let next = page.next.map(LetterId::get);
        output.document(&json!({ "letters": letters, "more_before": next }))?;
        return Ok(());
    }
    let row = |letter: &ArchivedLetter| {
        [
            letter.id.to_string(),
            time(since_1970(letter.dead_lettered_at)),
            letter.stream.clone(),
            letter.group.clone(),
            letter.reason.clone(),
            letter.event_type.as_deref().unwrap_or("-").to_owned(),
            letter.attempts.to_string(),
            word(letter).to_owned(),
            cut(letter.error.as_deref().unwrap_or("-"), ERROR_CHARACTERS_MAX),
        ]
    };
    let head =
        ["ID", "DEAD-LETTERED", "STREAM", "GROUP", "REASON", "TYPE", "ATTEMPTS", "STATE", "ERROR"];
    output.table(head, page.letters.iter().map(row).collect())?;
    if let Some(id) = page.next {
        output.flush()?;
        print_note(&format!("more results: --before {id}"));
    }
    Ok(())
}

fn show(letter: &ArchivedLetter, output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        let mut document = summary(letter);
        if let Value::Object(document) = &mut document {
            document.insert("history".to_owned(), attempts::document(letter.history()));
            document.insert("fields".to_owned(), fields::document(letter.fields()));
        }
        output.document(&document)?;
        return Ok(());
    }
    let at = |at: Option<SystemTime>| at.map_or_else(|| "-".to_owned(), |at| time(since_1970(at)));
    let text = |text: Option<&str>| text.unwrap_or("-").to_owned();
    output.pairs([
        ("id", letter.id.to_string()),
        ("stream", letter.stream.clone()),
        ("group", letter.group.clone()),
        ("state", word(letter).to_owned()),
        ("dead-lettered", at(Some(letter.dead_lettered_at))),
        ("archived", at(Some(letter.archived_at))),
        ("redriven", at(letter.redriven_at)),
        ("reason", letter.reason.clone()),
        ("error", text(letter.error.as_deref())),
        ("kind", letter.fingerprint.clone()),
        ("attempts", letter.attempts.to_string()),
        ("deliveries", letter.deliveries.to_string()),
        ("original entry", letter.origin.map_or_else(|| "-".to_owned(), |id| id.to_string())),
        ("event id", text(letter.event_id.as_deref())),
        ("consumer", text(letter.consumer.as_deref())),
    ])?;
    fields::print("field ", letter.fields(), output)?;
    Ok(attempts::print("attempts", letter.history(), output)?)
}

async fn redrive(
    arguments: &Arguments,
    letters: &DeadLetters,
    command: &ArchiveRedrive,
    output: &mut Output,
) -> Result<Exit, Failure> {
    if let Some(id) = command.resume {
        return resume(arguments, letters, (id, command.consent.yes), output).await;
    }
    let selected = match command.ids.is_empty() {
        true => selection(&command.filter),
        false => Selection::new().ids(distinct(&command.ids)),
    };
    let (by, why) = (command.by.clone(), command.why.clone());
    let request = Request::new(by.unwrap_or_default(), why.unwrap_or_default());
    let redriving = letters.redrive(selected, request).rate(command.rate);
    if !command.consent.yes {
        let plan = redriving.dry_run().await?;
        let groups = plan.by_group.iter().map(|group| {
            json!({ "stream": group.stream, "group": group.group, "letters": group.letters })
        });
        let document = json!({
            "action": "redrive",
            "dry_run": true,
            "selected": plan.letters,
            "not_runnable": plan.not_runnable,
            "groups": groups.collect::<Vec<_>>(),
        });
        let what = format!(
            "redrive {} archived dead letters of {} groups, of which {} cannot run",
            plan.letters,
            plan.by_group.len(),
            plan.not_runnable
        );
        return planned(&what, &document, output);
    }
    let client = connect::client(arguments).await?;
    let id = redriving.record().await?;
    print_note(&format!("redrive {id}; if it is interrupted: archive redrive --resume {id} --yes"));
    report(&letters.resume(id, &client).await?, output)
}

/// Continues a redrive that was recorded before.
async fn resume(
    arguments: &Arguments,
    letters: &DeadLetters,
    (id, yes): (RedriveId, bool),
    output: &mut Output,
) -> Result<Exit, Failure> {
    if !yes {
        let document = json!({ "action": "redrive", "dry_run": true, "redrive": id.get() });
        return planned(&format!("go on with redrive {id}"), &document, output);
    }
    let client = connect::client(arguments).await?;
    report(&letters.resume(id, &client).await?, output)
}

fn report(redrive: &Redrive, output: &mut Output) -> Result<Exit, Failure> {
    let Redrive { id, letters, done, failed, skipped, .. } = redrive;
    let text = format!(
        "redriven {done} of {letters} archived dead letters, {failed} failed, {skipped} skipped"
    );
    let document = json!({
        "action": "redrive",
        "dry_run": false,
        "redrive": id.get(),
        "selected": letters,
        "done": done,
        "failed": failed,
        "skipped": skipped,
        "waiting": redrive.waiting(),
    });
    output.answer(&text, &document)?;
    Ok(if done == letters { Exit::Ok } else { Exit::Findings })
}

/// The details of a letter without its payload.
fn summary(letter: &ArchivedLetter) -> Value {
    let at = |at: Option<SystemTime>| at.map(since_1970);
    json!({
        "id": letter.id.get(),
        "stream": letter.stream,
        "group": letter.group,
        "state": word(letter),
        "dead_lettered_ms": since_1970(letter.dead_lettered_at),
        "archived_ms": since_1970(letter.archived_at),
        "redriven_ms": at(letter.redriven_at),
        "reason": letter.reason,
        "error": letter.error,
        "kind": letter.fingerprint,
        "type": letter.event_type,
        "attempts": letter.attempts,
        "deliveries": letter.deliveries,
        "origin": letter.origin.map(|id| id.to_string()),
        "event_id": letter.event_id,
        "consumer": letter.consumer,
    })
}

fn word(letter: &ArchivedLetter) -> &'static str {
    match letter.state() {
        LetterState::Redriven => "redriven",
        LetterState::KnownDone => "known_done",
        _ => "open",
    }
}

fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

const CONNECT_MAX: Duration = Duration::from_secs(5);
const ERROR_CHARACTERS_MAX: usize = 60;
