//! An authority whose answers are given beforehand, for tests.

use crate::{ActionId, Answer, Authority, Check, Refusal, authority::Answering};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Answers as it was told, denies everything else, and remembers what it was asked.
#[derive(Debug, Default)]
pub struct ScriptedAuthority {
    script: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    answers: HashMap<ActionId, Answer>,
    asked: Vec<Check>,
}

impl ScriptedAuthority {
    /// One that denies everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that allows everything.
    pub fn allowing_all() -> Self {
        let authority = Self::new();
        ActionId::ALL.iter().for_each(|action| authority.allow(*action));
        authority
    }

    /// From now on allows `action`.
    pub fn allow(&self, action: ActionId) {
        self.answer(action, Ok(()));
    }

    /// From now on gives `answer` to `action`.
    pub fn answer(&self, action: ActionId, answer: Answer) {
        self.script().answers.insert(action, answer);
    }

    /// What it was asked so far, oldest first.
    pub fn asked(&self) -> Vec<Check> {
        self.script().asked.clone()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authority for ScriptedAuthority {
    fn check<'a>(&'a self, check: &'a Check) -> Answering<'a> {
        let mut script = self.script();
        script.asked.push(check.clone());
        let action = check.action;
        let answer = script.answers.get(&action).cloned().unwrap_or(Err(Refusal::Denied { action }));
        Box::pin(std::future::ready(answer))
    }
}
