//! What happens to a single server, its database, and the links to both.

use std::time::Instant;

use streamjobs_tests::history::Disturbance;
use streamjobs_tests::proxy::{FaultProxy, Mode};

use super::{Heal, How, Kind, Nemesis, pause};
use crate::crew::Crew;
use crate::options::TERMS;

impl Nemesis<'_> {
    /// Does the kinds that need a single server.
    pub(super) fn act_on_single(&mut self, kind: Kind, crew: &mut Crew) {
        match kind {
            Kind::ConsumerDeleted => self.delete_consumer(crew),
            Kind::Link => self.link(crew),
            Kind::ProducerLink => self.producer_link(),
            Kind::RedisRestart => self.redis_restart(),
            Kind::RedisFreeze => self.redis_freeze(),
            Kind::DatabaseRestart => self.database_restart(),
            Kind::DatabaseConnectionsKilled => self.database_connections(),
            Kind::Failover => self.failover(crew),
            other => panic!("{other:?} is not of one server"),
        }
    }

    /// Deletes the consumer of a working process, as a careless operator might, and leaves the
    /// process alone until the jobs that run there have ended. Jobs that die with the process after
    /// that are lost, and only those. Deleting breaks nothing, and so excuses nothing. Entries that
    /// the process has given up after an outage and that wait to be claimed would be lost with the
    /// consumer, because no process remembers them. If there are any, the consumer is not deleted.
    fn delete_consumer(&mut self, crew: &mut Crew) {
        let Some(place) = self.choose(crew) else { return };
        let (group, consumer) = (crew.places[place].group, crew.places[place].consumer());
        let Some(consumer) = consumer else { return };
        let keys = [group.stream.to_owned(), format!("{{{}}}:lane:{}", group.stream, group.name)];
        // Entries in flight are renewed more often than that.
        let given_up = (TERMS.lease / 2).as_millis().to_string();
        let is_careless = |key: &String| {
            let query = ["XPENDING", key, group.name, "IDLE", &given_up, "-", "+", "1", &consumer];
            let rows = self.stand.single().pair().primary.try_query::<Vec<redis::Value>>(&query);
            // Without a group there is nothing to lose.
            rows.map_or(true, |rows| rows.is_empty())
        };
        if !keys.iter().all(is_careless) {
            // Try again another time.
            self.deck.insert(0, Kind::ConsumerDeleted);
            self.done.entry(Kind::ConsumerDeleted).and_modify(|done| *done -= 1);
            return;
        }
        println!("soak: deletes the consumer {consumer} of {}", group.name);
        for key in keys {
            let delete = ["XGROUP", "DELCONSUMER", &key, group.name, &consumer];
            let _none_there = self.stand.single().pair().primary.try_query::<i64>(&delete).is_err();
        }
        let due = Instant::now() + TERMS.lease * 3;
        self.later(crew, Heal { due, place, fault: 0, how: How::Wait });
    }

    fn link(&mut self, crew: &mut Crew) {
        let Some(place) = self.choose(crew) else { return };
        let pid = crew.places[place].worker.pid();
        let fault = self.stand.broken(&Disturbance::Link { pid });
        let due = Instant::now() + self.leases(0.5, 2.0);
        let proxy = crew.places[place].proxy.as_ref().expect("a single server has proxies");
        let how = match self.rng.u8(..4) {
            0 => {
                proxy.sever();
                How::Pass
            }
            1 => {
                proxy.set(Mode::BlackHole);
                How::Pass
            }
            2 => {
                proxy.set(Mode::DropReplies);
                How::PassAnew
            }
            _ => {
                proxy.set(Mode::LoseReply);
                How::Pass
            }
        };
        self.later(crew, Heal { due, place, fault, how });
    }

    /// Lets producers lose answers. That is not the fault of any working process.
    fn producer_link(&mut self) {
        let entrance = &self.stand.single().entrance;
        if self.rng.bool() { entrance.sever() } else { entrance.set(Mode::LoseReply) }
    }

    fn redis_restart(&mut self) {
        let down = self.leases(0.0, 0.75);
        self.server("restart", |stand| {
            stand.single().pair().primary.kill();
            pause(down);
            stand.single().pair().primary.restart().unwrap();
        });
    }

    fn redis_freeze(&mut self) {
        let long = self.leases(0.25, 2.0);
        self.server("freeze", |stand| {
            stand.single().pair().primary.freeze();
            pause(long);
            stand.single().pair().primary.thaw();
        });
    }

    fn database_restart(&mut self) {
        let (down, at_once) = (self.leases(0.0, 1.0), self.rng.bool());
        let postgres = &self.stand.single().postgres;
        let fault = self.stand.broken(&Disturbance::Database);
        if at_once {
            postgres.kill()
        } else {
            postgres.stop()
        }
        pause(down);
        postgres.restart().unwrap();
        self.stand.mended(fault);
    }

    fn database_connections(&self) {
        let fault = self.stand.broken(&Disturbance::Database);
        self.stand.single().executor.block_on(async {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE usename = 'streamjobs_run'";
            // A pool whose connections were lost with the server opens others.
            let pool = self.stand.single().database.admin_pool();
            sqlx::query(end).execute(&pool).await.unwrap();
        });
        self.stand.mended(fault);
    }

    /// Promotes the replica. First all links are cut; then the replica gets the time to receive
    /// everything that was ever confirmed; then the old primary is killed.
    fn failover(&mut self, crew: &mut Crew) {
        let single = self.stand.single();
        single.in_step();
        let all = || crew.proxies().chain([(&single.entrance, &Mode::Pass)]);
        // Places with a broken link of their own are repaired first.
        self.heal_links(crew);
        self.server("failover", |_| {
            all().for_each(|(proxy, _)| cut(proxy));
            assert!(single.replicated().unwrap(), "the replica is not there in time");
            single.pair().primary.kill();
            single.promote();
            let pair = single.pair();
            all().for_each(|(proxy, usual)| {
                proxy.aim(&pair.primary);
                proxy.set(usual.clone());
            });
        });
        single.attach();
    }

    fn heal_links(&mut self, crew: &Crew) {
        let now = Instant::now();
        for heal in &mut self.heals {
            if matches!(heal.how, How::Pass | How::PassAnew) {
                heal.due = now;
                crew.places[heal.place].pass();
            }
        }
    }
}

fn cut(proxy: &FaultProxy) {
    proxy.set(Mode::Refuse);
    proxy.sever();
}
