"""The algorithm: on-policy temporal differences with λ-returns, after a clairvoyant warm start.

Read from top to bottom. One *update* is

1. *rollout*: a batch of episodes, each to its end, with the Boltzmann policy over Q/α;
2. *targets*: for every visited state the clairvoyant Q of all candidates, and the λ-return of the action taken, from
   soft values of the target network;
3. *regression*: one pass over the transitions in minibatches; then the target network follows.

PQN (Gallici et al. 2024, arXiv 2407.04811) without a replay buffer, with the soft values of Q-RAG (arXiv 2511.07328).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from index.arrays import BoolArray, Float32Array, IntArray
from index.encoders.tower import token_batches
from index.search.function import QFunction
from trainer.datasets.question import Question
from trainer.hyperparameters import Hyperparameters
from trainer.learning.distributed import average_gradients, largest, total
from trainer.learning.environment import Environment, Observation, Observer
from trainer.learning.negatives import Negatives
from trainer.learning.networks import ChunkTable, MasterWeights, QNetwork
from trainer.learning.scoring import q_values, rotation

SCORED_CANDIDATES = 16_384
"""Candidates, padding included, scored at once: their rotations fit the cache of a CPU."""


OVERSHOOT = 0.25
"""Where STOP is learned, how often an episode goes on after a state in which nothing was missing."""


class Transition(NamedTuple):
    """One selection of an episode."""

    observation: Observation
    rows: IntArray
    """Of the candidates in the chunk table, shape ``[candidates]``."""
    action: int
    q: Float32Array
    """Of the behaviour policy, shape ``[candidates]``."""


class Trajectory(NamedTuple):
    """An episode as it was played."""

    transitions: list[Transition]
    rewards: list[float]
    final: tuple[Observation, IntArray] | None
    """The last state and its candidates' rows where the budget cut the episode off; none where it was completed."""


class Batch(NamedTuple):
    """Transitions with their targets, side by side."""

    transitions: list[Transition]
    returns: Float32Array


# -- values -----------------------------------------------------------------------------------------------------------


def soft_value(q: torch.Tensor, available: torch.Tensor, alpha: float) -> torch.Tensor:
    """``V(s) = α · logsumexp(Q/α)`` over the available candidates alone, shape ``[states]``.

    ``q`` and ``available`` have shape ``[states, candidates]``. Masked before the sum: a selected chunk has no value.
    """
    return alpha * torch.logsumexp((q / alpha).masked_fill(~available, -torch.inf), dim=1)


def lambda_returns(rewards: Sequence[float], next_values: Sequence[float], gamma: float, lambda_: float) -> list[float]:
    """``G_t = r_t + γ[(1-λ) V(s_{t+1}) + λ G_{t+1}]`` of one episode, from the last to the first.

    ``next_values[t]`` is ``V(s_{t+1})``: 0 after completion, and the last state's own value where the budget cut the
    episode off, which then also stands for the return that was not seen.
    """
    following = next_values[-1]
    returns = []
    for reward, value in zip(reversed(rewards), reversed(next_values), strict=True):
        following = reward + gamma * ((1 - lambda_) * value + lambda_ * following)
        returns.append(following)
    return returns[::-1]


def clairvoyant_loss(
    q: torch.Tensor, optimal: torch.Tensor, available: torch.Tensor, support: torch.Tensor, settings: Hyperparameters
) -> torch.Tensor:
    """Of each state, shape ``[states]``: squared errors against the optimal Q, and the contrast.

    All arguments have shape ``[states, candidates]``. Missing support and other chunks weigh the same, however many
    there are of each.
    """
    squared = (q - optimal).square()
    others = available & ~support
    error = sum((squared * group).sum(1) / group.sum(1).clamp(min=1) for group in (support, others))
    logits = (q / settings.contrast_alpha).masked_fill(~available, -torch.inf)
    found = torch.logsumexp(logits.masked_fill(~support, -torch.inf), dim=1)
    return settings.squared * error + settings.contrast * (torch.logsumexp(logits, dim=1) - found)


def with_negatives(transition: Transition, level: int, rows: IntArray, q: Float32Array) -> Transition:
    """The same selection, had the chunks in these ``rows`` stood in the document too, at this level."""
    observation, more = transition.observation, len(rows)
    longer = observation._replace(
        levels=np.concatenate((observation.levels, np.full(more, level))),
        available=np.concatenate((observation.available, np.ones(more, dtype=np.bool_))),
        support=np.concatenate((observation.support, np.zeros(more, dtype=np.bool_))),
    )
    return Transition(
        longer, np.concatenate((transition.rows, rows)), transition.action, np.concatenate((transition.q, q))
    )


# -- the learner ------------------------------------------------------------------------------------------------------


class Learner:
    """The networks, the optimiser, and the three parts of an update."""

    def __init__(self, network: QNetwork, target: QNetwork, settings: Hyperparameters, seed: int) -> None:
        self.network, self.target, self.settings = network, target, settings
        self.device = network.w.device
        self.batch_tokens = settings.batch_tokens or (65_536 if self.device.type == "cuda" else 1024)
        self.generator = np.random.default_rng(seed)
        self.table = ChunkTable(network)
        self.negatives = Negatives(network, self.table, settings.hard_negatives)
        self.observer = Observer(network.encoder, settings.gamma, settings.reward)
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
        return QFunction(values["w"].item(), values["b"].item(), config.positions, config.temperature)

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
        """Whether the clairvoyant warm start is still on."""
        return self.progress < self.settings.warm_start

    def update(self, questions: Sequence[Question]) -> dict[str, float]:
        """Play one episode on each question and learn from all of them; returns what a log should show."""
        self.negatives.forget()
        trajectories = self.rollout(questions)
        batch = self.targets(trajectories)
        losses = [self.regress(minibatch) for minibatch in self._minibatches(batch)]
        self.seen += total(len(batch.transitions), self.device)
        self.updates += 1
        self._follow()
        if self.settings.action_mode == "refreshed" and self.updates % self.settings.refresh_updates == 0:
            self.table.refresh()
        return {
            "loss": float(np.mean(losses)),
            "solved": float(np.mean([trajectory.final is None for trajectory in trajectories])),
            "steps": len(batch.transitions) / len(trajectories),
            "alpha": self.alpha,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "w": self.masters.values["w"].item(),
        }

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

    # 1. rollout

    def rollout(self, questions: Sequence[Question]) -> list[Trajectory]:
        """Episodes over the questions, all stepped together, with the Boltzmann policy."""
        environments = [self.observer.start(question) for question in questions]
        rows = [self.table.rows(question.chunks) for question in questions]
        played = [Trajectory([], [], None) for _ in questions]
        running = list(range(len(questions)))
        while running:
            observations = [self.observer.observe(environments[i]) for i in running]
            states = self._states(self.network, observations)
            q = self._q(self.network, states, observations, [rows[i] for i in running])
            transitions = [
                Transition(observation, rows[i], self._sample(values, observation), values)
                for i, observation, values in zip(running, observations, q, strict=True)
            ]
            for i, transition in zip(running, transitions, strict=True):
                played[i].rewards.append(environments[i].step(transition.action, self.settings.reward))
            if self.warm and self.settings.hard_negatives > 0:
                transitions = self._hardened(transitions, states, [questions[i].pool for i in running])
            for i, transition in zip(running, transitions, strict=True):
                played[i].transitions.append(transition)
            running = [i for i, t in zip(running, transitions, strict=True) if self._goes_on(environments[i], t)]
        return [
            self._cut_off(trajectory, environment, own)
            for trajectory, environment, own in zip(played, environments, rows, strict=True)
        ]

    def _goes_on(self, environment: Environment, last: Transition) -> bool:
        """Whether an episode has another selection after its ``last``."""
        if not self.settings.stop or environment.missing > 0:
            return not environment.done
        # The complete state is met once at least; what is selected in it is as the policy likes.
        return not environment.full and (not last.observation.complete or self.generator.random() < OVERSHOOT)

    def _cut_off(self, trajectory: Trajectory, environment: Environment, rows: IntArray) -> Trajectory:
        if not environment.truncated:
            return trajectory
        return trajectory._replace(final=(self.observer.observe(environment), rows))

    def _hardened(
        self, transitions: Sequence[Transition], states: torch.Tensor, pools: Sequence[Sequence[str]]
    ) -> list[Transition]:
        """The transitions with the hard negatives of their pools as further candidates."""
        hardened = list(transitions)
        for pool in {id(pool): pool for pool in pools if pool}.values():
            members = [at for at, own in enumerate(pools) if own is pool]
            levels = [int(self.generator.choice(transitions[at].observation.levels)) for at in members]
            found = self.negatives.search(states[members], levels, pool, [transitions[at].rows for at in members])
            for at, level, (rows, q) in zip(members, levels, found, strict=True):
                hardened[at] = with_negatives(transitions[at], level, rows, q)
        return hardened

    def _sample(self, q: Float32Array, observation: Observation) -> int:
        """By the Gumbel trick: the argmax of Q/α plus noise is distributed as softmax(Q/α)."""
        noise = self.generator.gumbel(size=len(q))
        if observation.support.any() and self._shown():
            return int(np.where(observation.support, noise, -np.inf).argmax())
        return int(np.where(observation.available, q / self.alpha + noise, -np.inf).argmax())

    def _shown(self) -> bool:
        """Whether the next selection is one of the support (DAgger, Ross et al. 2011, arXiv 1011.0686)."""
        if self.settings.behaviour == "dagger" and self.warm:
            return bool(self.generator.random() >= self.progress / self.settings.warm_start)
        return self.settings.behaviour == "support"

    # 2. targets

    def targets(self, trajectories: Sequence[Trajectory]) -> Batch:
        """The λ-return of every transition; zeros while the warm start, which does not read them, is on."""
        transitions = [t for trajectory in trajectories for t in trajectory.transitions]
        if self.warm:
            return Batch(transitions, np.zeros(len(transitions), dtype=np.float32))
        target = self.target if self.settings.target_decay > 0 else self.network
        # What comes after the completion, if anything, is worth nothing.
        lengths = [sum(not t.observation.complete for t in trajectory.transitions) for trajectory in trajectories]
        own = [played.transitions[1:length] for played, length in zip(trajectories, lengths, strict=True)]
        states = [(t.observation, t.rows) for inner in own for t in inner]
        ends = [trajectory.final for trajectory in trajectories if trajectory.final is not None]
        values = iter(self._values(target, states + ends))
        following = [[next(values) for _ in inner] for inner in own]
        returns: list[float] = []
        for trajectory, length, inner in zip(trajectories, lengths, following, strict=True):
            # Completed: nothing can be gained any more. Cut off: more could have been.
            last = 0.0 if trajectory.final is None else next(values)
            rewards = trajectory.rewards[:length]
            returns += lambda_returns(rewards, [*inner, last], self.settings.gamma, self.settings.lambda_)
            returns += [0.0] * (len(trajectory.transitions) - length)
        return Batch(transitions, np.array(returns, dtype=np.float32))

    def _values(self, network: QNetwork, states: Sequence[tuple[Observation, IntArray]]) -> list[float]:
        values = []
        observations = [observation for observation, _ in states]
        embeddings = self._states(network, observations)
        every_q = self._q(network, embeddings, observations, [rows for _, rows in states])
        for observation, q in zip(observations, every_q, strict=True):
            row = torch.from_numpy(q)[None]
            values.append(float(soft_value(row, torch.from_numpy(observation.available)[None], self.alpha)))
        return values

    # 3. regression

    def _minibatches(self, batch: Batch) -> Iterator[Batch]:
        order = self.generator.permutation(len(batch.transitions))
        # As many in every process: each waits for the others' gradients.
        parts = largest(max(1, round(len(order) / self.settings.minibatch)), self.device)
        for part in np.array_split(order, parts):
            yield Batch([batch.transitions[i] for i in part], batch.returns[part])

    def regress(self, batch: Batch) -> float:
        """One optimiser step; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * _schedule(self.progress)
        summed = 0.0
        lengths = [len(transition.observation.state.ids) for transition in batch.transitions]
        for part in token_batches(lengths, self.batch_tokens):
            transitions = [batch.transitions[i] for i in part]
            loss = self._loss(transitions, torch.from_numpy(batch.returns[part]).to(self.device)).sum() / len(lengths)
            loss.backward()  # type: ignore[no-untyped-call]
            self.masters.accumulate()
            summed += loss.item()
        average_gradients(self.masters.values.values())
        torch.nn.utils.clip_grad_norm_(self.masters.values.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.masters.publish()
        return summed

    def _loss(self, transitions: Sequence[Transition], returns: torch.Tensor) -> torch.Tensor:
        """Of each transition, shape ``[transitions]``."""
        observations = [transition.observation for transition in transitions]
        states = self.network.state_embeddings([observation.state for observation in observations])
        if not self.warm:
            chosen = [np.array([transition.action]) for transition in transitions]
            q = self._scores(self.network, states, transitions, chosen)[0]
            return (q[:, 0] - returns).square() + self._stop_loss(states, observations)
        chosen = [self._contenders(transition) for transition in transitions]
        q, padding = self._scores(self.network, states, transitions, chosen)
        both = list(zip(observations, chosen, strict=True))
        available = self._padded([o.available[some] for o, some in both], q.shape[1]) & ~padding
        support = self._padded([o.support[some] for o, some in both], q.shape[1])
        found, wasted = (
            torch.tensor([getattr(o, name) for o in observations], device=self.device)[:, None]
            for name in ("found", "wasted")
        )
        optimal = torch.where(support, found, wasted)
        if not self.settings.stop:
            return clairvoyant_loss(q, optimal, available, support, self.settings)
        # STOP is one candidate more: the one to take where no support is left, be it found or not there.
        complete = self._complete(observations)
        q = torch.cat((q, self.network.stop_values(states)[:, None]), dim=1)
        available = torch.cat((available, torch.ones_like(complete)[:, None]), dim=1)
        support = torch.cat((support, ~support.any(dim=1, keepdim=True)), dim=1)
        optimal = torch.cat((optimal, complete[:, None].float()), dim=1)
        # Among many other candidates its error would hardly weigh.
        error = torch.where(support[:, -1], 0.0, self._stop_loss(states, observations))
        return clairvoyant_loss(q, optimal, available, support, self.settings) + self.settings.squared * error

    def _complete(self, observations: Sequence[Observation]) -> torch.Tensor:
        """Whether nothing is missing, shape ``[observations]``."""
        return torch.tensor([observation.complete for observation in observations], device=self.device)

    def _stop_loss(self, states: torch.Tensor, observations: Sequence[Observation]) -> torch.Tensor | float:
        """Squared errors of ``Q(s, STOP)``, shape ``[observations]``; 0 where it is not learned."""
        if not self.settings.stop:
            return 0.0
        return (self.network.stop_values(states) - self._complete(observations).float()).square()

    def _contenders(self, transition: Transition) -> IntArray:
        """The candidates to regress on, in document order."""
        support = transition.observation.support
        if len(support) <= self.settings.candidates:
            return np.arange(len(support))
        worth = np.where(support, np.inf, np.where(transition.observation.available, transition.q, -np.inf))
        return np.sort(np.argpartition(-worth, self.settings.candidates)[: self.settings.candidates])

    # scores

    def _scores(
        self,
        network: QNetwork,
        states: torch.Tensor,
        transitions: Sequence[Transition],
        candidates: Sequence[IntArray],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Q of some candidates of each transition, and where a row is padding, both ``[transitions, candidates]``."""
        width = max(len(chosen) for chosen in candidates)
        rows = np.zeros((len(transitions), width), dtype=np.int64)
        levels = np.zeros_like(rows)
        padding = np.ones(rows.shape, dtype=np.bool_)
        for at, (transition, chosen) in enumerate(zip(transitions, candidates, strict=True)):
            rows[at, : len(chosen)] = transition.rows[chosen]
            levels[at, : len(chosen)] = transition.observation.levels[chosen]
            padding[at, : len(chosen)] = False
        distinct, inverse = np.unique(rows, return_inverse=True)
        base = self.table[torch.from_numpy(distinct)]
        if torch.is_grad_enabled() and self.settings.action_mode == "refreshed":
            base = self._with_live(base, distinct, transitions)
        positions = network.encoder.function.positions
        turn = rotation(levels, positions, base.shape[1], self.device)
        at_row = torch.from_numpy(inverse.reshape(rows.shape)).to(self.device)
        q = q_values(states, network.chunks(base), at_row, turn, network.w, network.b)
        return q, torch.from_numpy(padding).to(self.device)

    def _with_live(self, base: torch.Tensor, distinct: IntArray, transitions: Sequence[Transition]) -> torch.Tensor:
        """The stored embeddings, those of support and of the best candidates computed again with gradients."""
        wanted: set[int] = set()
        for transition in transitions:
            top = np.argsort(-transition.q)[: self.settings.live_chunks]
            wanted.update(transition.rows[top].tolist(), transition.rows[transition.observation.support].tolist())
            wanted.add(int(transition.rows[transition.action]))
        live = np.array(sorted(wanted.intersection(distinct.tolist())), dtype=np.int64)
        inputs = self.network.encoder.cut_action_inputs(self.table.texts(live))
        place = torch.from_numpy(np.searchsorted(distinct, live)).to(self.device)
        return base.index_copy(0, place, self.network.chunk_embeddings(inputs))

    def _states(self, network: QNetwork, observations: Sequence[Observation]) -> torch.Tensor:
        """Embeddings of the states without gradients, shape ``[len(observations), d]``."""
        return network.embed_states([observation.state for observation in observations], self.batch_tokens)

    @torch.no_grad()
    def _q(
        self,
        network: QNetwork,
        states: torch.Tensor,
        observations: Sequence[Observation],
        rows: Sequence[IntArray],
    ) -> list[Float32Array]:
        """Q of all candidates of each state, without gradients."""
        unknown = np.empty(0, dtype=np.float32)
        transitions = [
            Transition(observation, own, 0, unknown) for observation, own in zip(observations, rows, strict=True)
        ]
        q: dict[int, Float32Array] = {}
        for part in token_batches([len(own) for own in rows], SCORED_CANDIDATES):
            everything = [np.arange(len(rows[i])) for i in part]
            scores, _ = self._scores(network, states[part], [transitions[i] for i in part], everything)
            q |= {i: values[: len(rows[i])] for i, values in zip(part, scores.cpu().numpy(), strict=True)}
        return [q[i] for i in range(len(rows))]

    def _padded(self, arrays: Sequence[BoolArray], width: int) -> torch.Tensor:
        padded = np.zeros((len(arrays), width), dtype=arrays[0].dtype)
        for row, array in zip(padded, arrays, strict=True):
            row[: len(array)] = array
        return torch.from_numpy(padded).to(self.device)


def _schedule(progress: float) -> float:
    """The learning rate's factor: up in the first 5%, then down along a cosine to a hundredth."""
    if progress < 0.05:
        return max(progress / 0.05, 0.01)
    return float(0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (progress - 0.05) / 0.95)))
