"""The learner: plays episodes and regresses on what an objective says of them.

One *update* is

1. *rollout*: a batch of episodes, each to its end, with the Boltzmann policy over Q/α;
2. *targets*: the return of every transition, as the objective of the moment has it;
3. *regression*: one pass over the transitions in minibatches; then the target network follows.

The objectives are in :mod:`trainer.learning.objectives`: the clairvoyant warm start, then λ-returns. What the first one
says of a state does not depend on what follows, so the three are one there: a state is learned from where it is met,
from the forward pass that its selection was made with, and the optimiser takes one step at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from index.arrays import Float32Array, IntArray
from index.encoders.encoder import ReadStates
from index.encoders.heads import q_function
from index.encoders.tower import token_batches
from index.search.function import QFunction
from trainer.datasets.question import Question
from trainer.hyperparameters import Hyperparameters
from trainer.judging.judge import Judge
from trainer.learning.distributed import average_gradients, largest, total
from trainer.learning.environment import Environment, Observation, Observer
from trainer.learning.negatives import Negatives
from trainer.learning.networks import ChunkTable, MasterWeights, QNetwork, detached, gathered
from trainer.learning.objectives.lambda_returns import LambdaReturns
from trainer.learning.objectives.objective import Objective
from trainer.learning.objectives.reinforced import ReinforcedContrast
from trainer.learning.objectives.warm_start import WarmStart
from trainer.learning.rewards import Completion, Reward, reward_of
from trainer.learning.scoring import Scorer
from trainer.learning.teachers import Clairvoyant, Teacher
from trainer.learning.transitions import Batch, Trajectory, Transition, with_negatives

OVERSHOOT = 0.25
"""How often, where STOP is learned, an episode goes on after a state in which nothing was missing."""


class _Choice(NamedTuple):
    """A state in which a selection is due."""

    question: Question
    observation: Observation
    rows: IntArray
    """Rows of the question's chunks in the chunk table."""


class Learner:
    """The networks, the optimiser, and the three parts of an update."""

    def __init__(
        self,
        network: QNetwork,
        target: QNetwork,
        settings: Hyperparameters,
        seed: int,
        *,
        reward: Reward | None = None,
        teacher: Teacher | None = None,
        reranker: Teacher | None = None,
        judge: Judge | None = None,
    ) -> None:
        """``reward`` defaults to the one that the settings name, ``teacher`` to the clairvoyant one of that reward.

        Questions that ``distil`` need a ``reranker``, the reward ``answer`` and the objective ``r3`` need a ``judge``.
        """
        self.network, self.target, self.settings = network, target, settings
        self.device = network.w.device
        self.generator = np.random.default_rng(seed)
        self.table = ChunkTable(network)
        self.negatives = Negatives(network, self.table, settings.hard_negatives)
        self.observer = Observer(network.encoder)
        self.scorer = Scorer(network, self.table, settings)
        self.reward = reward or reward_of(settings.reward, judge)
        self.labelled = Completion() if settings.reward == "answer" else self.reward
        """The reward where no return reads it: a frozen reader is not asked for nothing."""
        teacher = teacher or Clairvoyant(self.reward, settings.gamma)
        self.beginning: Objective = WarmStart(network, self.scorer, teacher, settings, reranker)
        """The objective of the first ``warm_start`` of the training."""
        self.end: Objective = LambdaReturns(network, target, self.scorer, settings)
        """The objective of the rest."""
        if settings.objective == "r3":
            self.beginning, self.end = (
                ReinforcedContrast(network, self.scorer, self.table, judge, settings, self.generator, on_policy=walks)
                for walks in (False, True)
            )
        self.masters = MasterWeights(network)
        self.average = {name: value.detach().clone() for name, value in self.masters.values.items()}
        towers = [value for name, value in self.masters.values.items() if name.startswith(("state.", "action."))]
        heads = [value for name, value in self.masters.values.items() if not name.startswith(("state.", "action."))]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": towers, "peak": settings.learning_rate},
                {"params": heads, "peak": settings.head_learning_rate},
            ],
            lr=0.0,
            weight_decay=settings.weight_decay,
        )
        self.seen = 0
        """Transitions trained on."""
        self.updates = 0

    @property
    def function(self) -> QFunction:
        """The Q-function as it is now."""
        values = self.masters.values
        config = self.network.encoder.config
        w, b = values["w"].item(), values["b"].item()
        return q_function(w, b, config.positions, config.temperature, self.network.heads)

    @property
    def progress(self) -> float:
        """Share of the training done, 0 to 1."""
        return min(1.0, self.seen / self.settings.transitions)

    @property
    def alpha(self) -> float:
        """The temperature now."""
        settings = self.settings
        return settings.alpha_start + (settings.alpha_end - settings.alpha_start) * self.progress

    @property
    def warm(self) -> bool:
        """Whether the warm start is still on."""
        return self.progress < self.settings.warm_start

    @property
    def objective(self) -> Objective:
        """The objective now."""
        return self.beginning if self.warm else self.end

    def update(self, questions: Sequence[Question]) -> dict[str, float]:
        """Play one episode on each question and learn from all of them; returns what a log should show."""
        self.negatives.forget()
        if self.objective.looks_ahead:
            trajectories = self.rollout(questions)
            batch = self.targets(trajectories)
            loss = float(np.mean([self.regress(minibatch) for minibatch in self._minibatches(batch)]))
        else:
            trajectories, loss = self.learn_on_the_way(questions)
        count = sum(len(trajectory.transitions) for trajectory in trajectories)
        self.seen += total(count, self.device)
        self.updates += 1
        self._follow()
        if self.settings.action_mode == "refreshed" and self.updates % self.settings.refresh_updates == 0:
            self.table.refresh()
        return {
            "loss": loss,
            "solved": float(np.mean([trajectory.final is None for trajectory in trajectories])),
            "steps": count / len(trajectories),
            "alpha": self.alpha,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "w": self.masters.values["w"].item(),
        }

    # 1. rollout

    def rollout(self, questions: Sequence[Question]) -> list[Trajectory]:
        """Episodes over the questions, all stepped together, with the Boltzmann policy."""

        def select(choices: Sequence[_Choice]) -> list[Transition]:
            states = self.scorer.embed_states(self.network, [choice.observation for choice in choices])
            return self._select(choices, states)

        return self._play(questions, select)

    def learn_on_the_way(self, questions: Sequence[Question]) -> tuple[list[Trajectory], float]:
        """Episodes as :meth:`rollout` plays them, and one optimiser step on all of their states; with the mean loss."""
        objective, losses = self.objective, []

        def select(choices: Sequence[_Choice]) -> list[Transition]:
            transitions: dict[int, Transition] = {}
            lengths = [len(choice.observation.state.ids) for choice in choices]
            for part in self._parts(lengths):
                states = self.network.read_states([choices[i].observation.state for i in part])
                made = self._select([choices[i] for i in part], detached(states))
                returns = torch.zeros(len(made), device=self.device)
                of_part = objective.losses(states, made, returns)
                of_part.sum().backward()  # type: ignore[no-untyped-call]
                self.masters.accumulate()
                losses.extend(of_part.tolist())
                transitions.update(zip(part, made, strict=True))
            return [transitions[i] for i in range(len(choices))]

        trajectories = self._play(questions, select)
        self._step(1 / len(losses))
        return trajectories, float(np.mean(losses))

    def _play(
        self, questions: Sequence[Question], select: Callable[[Sequence[_Choice]], list[Transition]]
    ) -> list[Trajectory]:
        """Episodes, each to its end, that are stepped together; ``select`` makes the selections of a step."""
        environments = [self.observer.start(question) for question in questions]
        rows = [self.table.rows(question.chunks) for question in questions]
        trajectories = [Trajectory([], [], None) for _ in questions]
        running = list(range(len(questions)))
        while running:
            observed = [_Choice(questions[i], self.observer.observe(environments[i]), rows[i]) for i in running]
            transitions = select(observed)
            steps = [environments[i].select(t.action) for i, t in zip(running, transitions, strict=True)]
            rewards = (self.reward if self.objective.looks_ahead else self.labelled).rewards(steps)
            for i, transition, reward in zip(running, transitions, rewards, strict=True):
                trajectories[i].rewards.append(reward)
                trajectories[i].transitions.append(transition)
            running = [i for i, t in zip(running, transitions, strict=True) if self._goes_on(environments[i], t)]
        return [
            self._cut_off(trajectory, environment, rows_of_chunks)
            for trajectory, environment, rows_of_chunks in zip(trajectories, environments, rows, strict=True)
        ]

    def _select(self, choices: Sequence[_Choice], states: ReadStates) -> list[Transition]:
        """A selection in each state, with the hard negatives that the objective reads."""
        objective = self.objective
        q = self.scorer.all_q(
            self.network,
            states,
            [choice.observation for choice in choices],
            [choice.rows for choice in choices],
            [choice.question.counts for choice in choices],
        )
        transitions = [
            Transition(
                choice.question,
                choice.observation,
                np.arange(len(choice.question.chunks)),
                choice.rows,
                self._sample(values, choice.observation, objective),
                values,
            )
            for choice, values in zip(choices, q, strict=True)
        ]
        return self._hardened(transitions, states) if objective.reads_negatives else transitions

    def _sample(self, q: Float32Array, observation: Observation, objective: Objective) -> int:
        """The next selection: by the Gumbel trick, the argmax of Q/α plus noise is distributed as softmax(Q/α)."""
        noise = self.generator.gumbel(size=len(q))
        if observation.support.any() and objective.shows_support(self.progress, self.generator):
            return int(np.where(observation.support, noise, -np.inf).argmax())
        return int(np.where(observation.available, q / self.alpha + noise, -np.inf).argmax())

    def _hardened(self, transitions: Sequence[Transition], states: ReadStates) -> list[Transition]:
        """The transitions with the hard negatives of their pools as further candidates."""
        hardened = list(transitions)
        pools = [transition.question.pool for transition in transitions]
        for pool in {id(pool): pool for pool in pools if pool}.values():
            members = [i for i, other in enumerate(pools) if other is pool]
            levels = [int(self.generator.choice(transitions[i].observation.levels)) for i in members]
            negatives = self.negatives.search(
                gathered(states, members), levels, pool, [transitions[i].rows for i in members]
            )
            for i, level, texts in zip(members, levels, negatives, strict=True):
                hardened[i] = with_negatives(transitions[i], level, texts)
        return hardened

    def _goes_on(self, environment: Environment, last: Transition) -> bool:
        """Whether an episode has another selection after its ``last``."""
        if not self.settings.stop or environment.missing > 0:
            return not environment.done
        # The complete state is met once, whatever the budget: many are spent by then. What is selected in it is as the
        # policy likes.
        if not last.observation.complete:
            return not environment.exhausted
        return not environment.full and self.generator.random() < OVERSHOOT

    def _cut_off(self, trajectory: Trajectory, environment: Environment, rows: IntArray) -> Trajectory:
        if not environment.truncated:
            return trajectory
        return trajectory._replace(final=(self.observer.observe(environment), rows))

    # 2. targets

    def targets(self, trajectories: Sequence[Trajectory]) -> Batch:
        """All transitions with the returns that the objective gives them."""
        transitions = [t for trajectory in trajectories for t in trajectory.transitions]
        return Batch(transitions, self.objective.returns(trajectories, self.alpha))

    # 3. regression

    def _minibatches(self, batch: Batch) -> Iterator[Batch]:
        order = self.generator.permutation(len(batch.transitions))
        # As many in every process: each waits for the others' gradients.
        parts = largest(max(1, round(len(order) / self.settings.minibatch)), self.device)
        for part in np.array_split(order, parts):
            yield Batch([batch.transitions[i] for i in part], batch.returns[part])

    def regress(self, batch: Batch) -> float:
        """One optimiser step; returns the loss."""
        summed = 0.0
        lengths = [len(transition.observation.state.ids) for transition in batch.transitions]
        for part in self._parts(lengths):
            transitions = [batch.transitions[i] for i in part]
            states = self.network.read_states([transition.observation.state for transition in transitions])
            losses = self.objective.losses(states, transitions, torch.from_numpy(batch.returns[part]).to(self.device))
            loss = losses.sum()
            loss.backward()  # type: ignore[no-untyped-call]
            self.masters.accumulate()
            summed += loss.item()
        count = max(1, len(lengths))  # of several processes one may have played too little for a part of its own
        self._step(1 / count)
        return summed / count

    def _parts(self, lengths: Sequence[int]) -> Iterator[Sequence[int]]:
        """Which states of these lengths go through the networks together: what that changes is no matter of memory."""
        return (
            iter([range(len(lengths))])
            if self.objective.contrasts
            else token_batches(lengths, self.scorer.batch_tokens)
        )

    def _step(self, share: float) -> None:
        """One step of the optimiser along ``share`` times the gradients that were accumulated."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * _schedule(self.progress)
        for value in self.masters.values.values():
            if value.grad is not None:
                value.grad.mul_(share)
        average_gradients(self.masters.values.values())
        torch.nn.utils.clip_grad_norm_(self.masters.values.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.masters.publish()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the target network's exponential moving average towards the masters."""
        for name, value in self.masters.values.items():
            self.average[name].lerp_(value, 1 - self.settings.target_decay)
        if not self.warm:  # nobody reads the target before
            self.publish_target()

    @torch.no_grad()
    def publish_target(self) -> None:
        """Round the average into the target network."""
        parameters = dict(self.target.named_parameters())
        for name, value in self.average.items():
            parameters[name].copy_(value)


def _schedule(progress: float) -> float:
    """The learning rate's factor: up in the first 5%, then down along a cosine to a hundredth."""
    if progress < 0.05:
        return max(progress / 0.05, 0.01)
    return float(0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (progress - 0.05) / 0.95)))
