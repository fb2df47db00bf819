//! Moves a set from one living node to the other in three steps, so that it never has two owners (wire reference,
//! section 6). The giver offers and the taker agrees. The giver stops the set and says so. The taker starts it and says
//! so.

use super::*;

/// A hand-over of a set between two living nodes. Sets are named from the giver's view, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handover {
    /// No hand-over is under way.
    Idle,
    /// We offered the set and wait for the peer to agree.
    Offered { set: Holding, until: Instant },
    /// The peer agreed; we are stopping the set. `held` is the part of it that we held.
    Giving { set: Holding, held: Holding },
    /// We stopped it and wait for the peer to have started it.
    Given { set: Holding, held: Holding, until: Instant },
    /// The peer offered and we agreed; the peer is stopping the set.
    Awaiting { set: Holding, until: Instant },
    /// The peer has stopped the set; we are starting it.
    Taking { set: Holding },
}

impl R1Ownership {
    /// Handles an administrator's order to give a set to the peer.
    pub fn order_standby(&mut self, view: &R1View<'_>, order: OrderId, set: Holding) {
        if set.and(self.mine).is_none() {
            let done = Answer::Done("this node holds no group of that set".into());
            return self.answer(order, self.moving(view).map_or(done, Answer::Refused));
        }
        if let Some(why) = self.unreachable_there(view, set) {
            return self.wait_for_reach(view, WaitingOrder::gives(order, set, view.now), &why);
        }
        if let Err(why) = self.offer(view, set, Some(order)) {
            self.answer(order, Answer::Refused(why));
        }
    }

    /// Offers a set to the peer without an order that waits for the result.
    ///
    /// # Errors
    /// The reason why this is impossible now.
    pub fn give_away(&mut self, view: &R1View<'_>, set: Holding) -> Result<(), String> {
        if set.and(self.mine).is_none() { Ok(()) } else { self.offer(view, set, None) }
    }

    /// Handles a script's wish to give a set to the peer, as `hb_standby` does; the log has the result.
    pub fn wish_standby(&mut self, view: &R1View<'_>, set: Holding) {
        if let Err(why) = self.give_away(view, set) {
            self.note(Level::Warning, format!("not handed over: {why}"));
        }
    }

    /// Handles a script's wish to get a set from the peer, as `hb_takeover` does.
    pub fn wish_takeover(&mut self, view: &R1View<'_>, set: Holding) {
        let why = if set.minus(self.mine).is_none() {
            Some(self.start_again(view, set).unwrap_or_else(|| "already here".into()))
        } else {
            self.in_flux(view).or_else(|| self.unreachable_here(view, set))
        };
        match why {
            Some(why) => self.note(Level::Warning, format!("not asked for: {why}")),
            None => self.say(Body::Takeover { hold: set }),
        }
    }

    /// Handles an administrator's order to get a set from the peer.
    pub fn order_takeover(&mut self, view: &R1View<'_>, order: OrderId, set: Holding) {
        if set.minus(self.mine).is_none() {
            let answer = match self.moving(view) {
                Some(why) => Answer::Refused(why),
                None => Answer::Done(self.start_again(view, set).unwrap_or_else(|| "already here".into())),
            };
            return self.answer(order, answer);
        }
        match self.in_flux(view) {
            Some(why) => self.answer(order, Answer::Refused(why)),
            None if self.takeover.is_some() => {
                self.answer(order, Answer::Refused("another takeover is under way".into()));
            }
            None => match self.unreachable_here(view, set) {
                Some(why) => self.wait_for_reach(view, WaitingOrder::takes(order, set, view.now), &why),
                None => {
                    self.takeover = Some((order, set, view.now + WAIT));
                    self.say(Body::Takeover { hold: set });
                }
            },
        }
    }

    /// The reason why nothing can be handed over now.
    pub(super) fn in_flux(&self, view: &R1View<'_>) -> Option<String> {
        if self.state != R1State::Stable {
            return Some("this node has not settled yet".into());
        }
        if !view.peer_up {
            return Some(format!("{} is not heard, or has left", view.name()));
        }
        if self.leave.is_some() {
            return Some("this node is leaving".into());
        }
        if self.legacy.speaks {
            let text = "a heartbeat peer with `auto_failback legacy` has no hand-over; write `on` or `off` on both \
                        nodes";
            return Some(text.into());
        }
        if !self.contested().is_none() {
            return Some("both nodes claim the same resources".into());
        }
        self.moving(view)
    }

    /// What is under way. A set counts as held from the moment it is taken, before its groups run or have stopped.
    pub(super) fn moving(&self, view: &R1View<'_>) -> Option<String> {
        match self.transition() {
            Some(what) => Some(format!("resources are in transition ({what})")),
            None => (!view.groups.at_rest(Holding::All)).then(|| "resources are in transition".into()),
        }
    }

    pub(super) fn offer(
        &mut self,
        view: &R1View<'_>,
        set: Holding,
        order: Option<OrderId>,
    ) -> Result<(), String> {
        if let Some(why) = self.in_flux(view) {
            return Err(why);
        }
        if !self.other_stable {
            return Err(format!("{} has not settled yet", view.name()));
        }
        if let Some(why) = self.unreachable_there(view, set) {
            return Err(why);
        }
        self.handover = Handover::Offered { set, until: view.now + WAIT };
        self.order = order;
        self.other_stable = false;
        self.say(Body::AskResources { hold: set, step: AskStep::Me });
        if breakage::is(Breakage::StartBeforeDone) {
            self.say(Body::AskResources { hold: set, step: AskStep::Done });
        }
        Ok(())
    }

    pub(super) fn heard_ask(&mut self, view: &R1View<'_>, set: Holding, step: AskStep) {
        if step == AskStep::Me && !view.is_first && view.peer_locum {
            self.withdraw_offer(view);
        }
        match (step, self.handover) {
            (AskStep::Me, _) if breakage::is(Breakage::NoAgreement) => {}
            (AskStep::Me, Handover::Idle) => match self.in_flux(view) {
                None => {
                    self.note(Level::Info, format!("{} wants to go standby [{}]", view.name(), set.word()));
                    self.other_stable = false;
                    self.handover = Handover::Awaiting { set, until: view.now + HANDOVER_MAX };
                    let here = self.mine.plus(set.mirrored());
                    if let Some((order, ..)) = self.takeover.take_if(|(_, set, _)| set.minus(here).is_none())
                    {
                        self.order = Some(order);
                    }
                    self.say(Body::AskResources { hold: set, step: AskStep::Other });
                }
                Some(why) => {
                    let text = format!(
                        "standby message [me] from {} ignored.  local resources in flux. ({why})",
                        view.name()
                    );
                    self.note(Level::Warning, text);
                }
            },
            (AskStep::Other, Handover::Offered { set: offered, .. }) if set == offered => {
                let text = format!("standby: {} can take our {} resources", view.name(), set.word());
                self.note(Level::Info, text);
                self.note(Level::Info, format!("give up {} HA resources (standby).", set.word()));
                self.handover = Handover::Giving { set, held: set.and(self.mine) };
                self.mine = self.mine.minus(set);
                self.say_holdings(false, Some("standby"));
                self.steps.push_back(R1Step::Want(set, false));
            }
            (AskStep::Done, Handover::Awaiting { set: awaited, .. }) if set == awaited => {
                let taken = set.mirrored();
                let text = format!("standby: acquire [{}] resources from {}", set.word(), view.name());
                self.note(Level::Info, text);
                self.note(Level::Info, format!("acquire {} HA resources (standby).", taken.word()));
                self.handover = Handover::Taking { set };
                self.mine = self.mine.plus(taken);
                self.steps.push_back(R1Step::Want(taken, true));
            }
            (AskStep::Done, Handover::Given { set: given, .. }) if set == given => self.given_away(view, set),
            (step, handover) => {
                let text = format!("standby message [{step:?}] from {} ignored.", view.name());
                // The peer's `done` may come after its `stable` has said the same, or twice.
                let is_known = step == AskStep::Done
                    && (handover == Handover::Idle || handover == Handover::Taking { set });
                self.note(if is_known { Level::Debug } else { Level::Warning }, text);
                if handover == Handover::Idle && self.state == R1State::Stable && view.peer_locum {
                    // The peer waits for a hand-over that we do not know. Our holdings tell it how the hand-over ended.
                    self.say_holdings(self.settled(), None);
                }
            }
        }
    }

    /// Withdraws our offer: two offers have crossed, and the peer's goes first. (Two real heartbeats both wait for 10
    /// s.)
    pub(super) fn withdraw_offer(&mut self, view: &R1View<'_>) {
        if let Handover::Offered { set, .. } = self.handover {
            self.failback_due |= self.order.is_none() && set == Holding::Foreign;
            let text = format!("{} asked for a hand-over at the same moment and goes first", view.name());
            self.end_handover(Answer::Refused(text));
        }
    }

    pub(super) fn given_away(&mut self, view: &R1View<'_>, set: Holding) {
        let text = format!("Other node completed standby takeover of {} resources.", set.word());
        self.note(Level::Info, text);
        self.end_handover(if view.groups.of(set).any(|group| view.peer_failed.contains(&group)) {
            Answer::Refused(format!("a resource could not be started on {}", view.name()))
        } else {
            Answer::Done(format!("{} runs on {} now", words(set), view.name()))
        });
        self.end_doubt();
        self.say_holdings(true, None);
    }

    /// The peer says that nothing moves there, and what it holds (in its view). A hand-over that waits for it is done,
    /// or will never be (one of us may have been taken for dead meanwhile).
    pub(super) fn peer_rests(&mut self, view: &R1View<'_>, hold: Holding) {
        match self.handover {
            Handover::Awaiting { set, .. } if view.peer_locum || !set.and(hold).is_none() => {
                let text = format!("{} keeps its {} resources.", view.name(), set.word());
                self.note(Level::Warning, text.clone());
                self.end_handover(Answer::Refused(text));
            }
            Handover::Given { set, .. } if set.mirrored().minus(hold).is_none() => self.given_away(view, set),
            Handover::Giving { held, .. } | Handover::Given { held, .. } if view.peer_locum => {
                let text = format!("{} has not taken {}; it runs here again", view.name(), words(held));
                self.note(Level::Warning, text.clone());
                self.keep(held, text);
            }
            _ => {}
        }
    }

    /// The hand-over failed: the part that we held stays here.
    pub(super) fn keep(&mut self, held: Holding, why: String) {
        self.mine = self.mine.plus(held);
        self.steps.push_back(R1Step::Want(held, true));
        self.end_handover(Answer::Refused(why));
        self.say_holdings(true, None);
    }

    pub(super) fn handover_goes_on(&mut self, view: &R1View<'_>) {
        match self.handover {
            Handover::Giving { set, held } if view.groups.released(set) => {
                let text = format!("{} HA resource release completed (standby).", set.word());
                self.note(Level::Info, text);
                self.note(Level::Info, format!("Local standby process completed [{}].", set.word()));
                self.handover = Handover::Given { set, held, until: view.now + HANDOVER_MAX };
                self.repeated_at = Some(view.now);
                self.say(Body::AskResources { hold: set, step: AskStep::Done });
            }
            Handover::Giving { set, held } if view.groups.stop_failed(set) && view.groups.at_rest(set) => {
                self.keep(held, "a resource cannot be stopped; the set stays here".into());
            }
            Handover::Taking { set } if view.groups.acquired(set.mirrored()) => {
                let taken = set.mirrored();
                let text = format!("{} HA resource acquisition completed (standby).", taken.word());
                self.note(Level::Info, text);
                self.note(Level::Info, format!("Standby resource acquisition done [{}].", set.word()));
                self.handover = Handover::Idle;
                self.say(Body::AskResources { hold: set, step: AskStep::Done });
                self.say_holdings(true, None);
                let failed = view.groups.of(taken).any(|group| view.groups.failure(group).is_some());
                self.end_order(if failed {
                    Answer::Refused("a resource could not be started here".into())
                } else {
                    Answer::Done(format!("{} runs here now", words(taken)))
                });
            }
            _ => {}
        }
    }

    /// Repeats to a node of Locum, once per deadtime, that a set has been stopped, until the peer has taken it. If the
    /// message were lost for good, both nodes would wait.
    pub(super) fn say_done_again(&mut self, view: &R1View<'_>) {
        let due = self.repeated_at.is_none_or(|at| view.now >= at + view.deadtime);
        if let Handover::Given { set, .. } = self.handover
            && due
            && view.peer_up
            && view.peer_locum
        {
            self.repeated_at = Some(view.now);
            self.say(Body::AskResources { hold: set, step: AskStep::Done });
        }
    }

    pub(super) fn hand_back_now(&mut self, view: &R1View<'_>, set: Holding) {
        let failed = view.groups.of(set.and(self.mine)).any(|group| view.groups.failure(group).is_some());
        if !failed {
            return;
        }
        // The peer cannot run it now, so try again here: the cause of the failure may be gone.
        let is_alone = !view.peer_up && self.state == R1State::Stable && self.leave.is_none();
        let goes_on = if is_alone {
            self.start_again(view, set).is_some()
        } else {
            self.offer(view, set, None).is_ok()
        };
        if !goes_on {
            let is_barred = view.groups.of(set).any(|group| view.groups.is_barred(group));
            let pause = if is_barred { BARRED_PAUSE } else { HAND_BACK };
            self.hand_back = Some((set, view.now + pause));
        }
    }

    /// Whether the peer's own groups are on their way to it, or offered to it.
    pub(super) fn is_giving_foreign(&self) -> bool {
        match self.handover {
            Handover::Offered { set, .. } | Handover::Giving { set, .. } | Handover::Given { set, .. } => {
                set.has_foreign()
            }
            Handover::Idle | Handover::Awaiting { .. } | Handover::Taking { .. } => false,
        }
    }

    /// The set that we are giving away, as long as the peer has not finished taking it.
    pub(super) const fn given(&self) -> Holding {
        match self.handover {
            Handover::Giving { held, .. } | Handover::Given { held, .. } => held,
            _ => Holding::None,
        }
    }
}
