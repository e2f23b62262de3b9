"""The choice stage: price the search in, draw the frontier, choose, write the bundle."""

from __future__ import annotations

from equipoise.bundle import Bundle, open_bundle, write_bundle
from equipoise.errors import InfeasibleError
from equipoise.pipeline.pricing import binding_constraints, price_again, put_work
from equipoise.pipeline.session import Session
from equipoise.runs import Candidate, RunFolder
from equipoise.search.context import TrialContext
from equipoise.search.frontier import frontier
from equipoise.search.selection import diagnose, explain, select


def choose(session: Session) -> tuple[Candidate, Candidate]:
    """Write `frontier.json` and `choice.json`; returns the choice and the teacher.

    Raises:
        InfeasibleError: no candidate meets the constraints; `choice.json` says so too.
    """
    run, config = session.run, session.config
    work = put_work(run)
    candidates = [price_again(candidate, work, config.cost, session.prices) for candidate in run.candidates()]
    constraints = binding_constraints(config.constraints, config.cost)
    for candidate in candidates:
        run.put(candidate.model_dump(mode="json"), "candidates", f"{candidate.recipe_hash}.json")
    teacher = next(candidate for candidate in candidates if candidate.is_teacher)
    members = frontier(candidates, config.search.objectives)
    hashes = [member.recipe_hash for member in members]
    eligible = [candidate for candidate in candidates if candidate.eligible]
    run.put(
        {
            "objectives": list(config.search.objectives),
            "members": hashes,
            "dominated": sorted(c.recipe_hash for c in eligible if c.recipe_hash not in hashes),
            "rejected": {c.recipe_hash: c.rejection for c in candidates if not c.eligible},
        },
        "frontier.json",
    )
    try:
        choice = select(candidates, constraints)
    except InfeasibleError:
        run.put(diagnose(candidates, constraints), "choice.json")
        raise
    run.put(explain(choice, teacher, candidates, constraints), "choice.json")
    return choice, teacher


def standing_choice(run: RunFolder) -> tuple[Candidate, Candidate] | None:
    """The choice and the teacher of an earlier try; None where none was made."""
    if not run.has("choice.json"):
        return None
    record = run.read("choice.json")
    if not record["feasible"]:
        return None
    by_hash = {candidate.recipe_hash: candidate for candidate in run.candidates()}
    return by_hash[record["recipe_hash"]], by_hash[record["teacher_hash"]]


def bundle_choice(session: Session, context: TrialContext, choice: Candidate) -> Bundle:
    """The choice as a bundle; kept where it is already there."""
    target = session.root / "bundle"
    if target.is_dir():
        bundle = open_bundle(target)
        if bundle.manifest.candidate["recipe_hash"] == choice.recipe_hash:
            return bundle
    return write_candidate_bundle(session, context, choice, target.name)


def write_candidate_bundle(
    session: Session, context: TrialContext, candidate: Candidate, *folder: str
) -> Bundle:
    """Any measured candidate as a bundle in the run folder."""
    return write_bundle(
        session.root.joinpath(*folder),
        name=session.config.name,
        task=context.load_task(candidate.quality.temperature, candidate.recipe.vocabulary),
        engine=candidate.recipe.engine,
        precision=candidate.recipe.precision,
        model_folder=session.root / "models" / candidate.recipe_hash,
        candidate=candidate.model_dump(mode="json"),
    )
