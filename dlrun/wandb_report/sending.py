"""A definition goes to W&B: only with an account, and only after the server has shown a sign of life."""

from __future__ import annotations

import json
from typing import Any

from dlrun.errors import UserError, printable
from dlrun.tracking.wandb.probe import Probe
from dlrun.wandb_report.definition import Definition

PATIENCE = 20.0  # seconds in which the server has to answer


def send(definition: Definition, project: str | None = None, entity: str | None = None) -> str:
    """Save it in W&B; returns its address. `project` and `entity` stand above the definition's own.

    Raises UserError without credentials, when the server doesn't answer, and for what W&B refuses.
    """
    import wandb

    setup = wandb.setup(wandb.Settings(silent=True))
    try:
        known = bool(wandb.login(prompt=False, verify=False))
    except Exception as error:  # a key of the wrong length, say
        raise UserError(f"W&B credentials can't be used ({str(error).splitlines()[0]})") from error
    if not known:
        raise UserError(
            "W&B has no credentials here: wandb login first, or out=FILE writes what dlrun wandb-report "
            "definition=FILE sends later"
        )
    settings = setup.settings
    proxies = {"http": settings.http_proxy, "https": settings.https_proxy}
    probe = Probe(settings.base_url, PATIENCE, {name: url for name, url in proxies.items() if url})
    probe.join(PATIENCE)
    if not probe.alive:
        raise UserError(
            f"W&B can't be reached ({settings.base_url}); out=FILE writes what dlrun wandb-report definition=FILE "
            "sends later"
        )
    try:
        api = wandb.Api()
        owner = entity or definition.entity or api.default_entity
        if not owner:
            raise UserError("entity: W&B knows no default; say whose project it is, entity=…")
        return _save(api, definition, owner, project or definition.project)
    except UserError:
        raise
    except Exception as error:  # whatever the package, its service or the server makes of it
        raise UserError(f"W&B refused it ({type(error).__name__}: {printable(str(error))})") from error


def _save(api: Any, definition: Definition, entity: str, project: str) -> str:
    """As `save()` of the package's Report and Workspace does it, with the spec as it is; returns the address."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces._graphql import execute_graphql
    from wandb_workspaces.reports.v2 import gql
    from wandb_workspaces.reports.v2.internal import _generate_name
    from wandb_workspaces.workspaces.internal import _generate_view_name

    if project not in [known.name for known in api.projects(entity)]:
        api.create_project(project, entity)
    is_report = definition.kind == "report"
    variables = {
        "id": None,
        "name": _generate_name() if is_report else _generate_view_name(),
        "entityName": entity,
        "projectName": project,
        "description": definition.description,
        "displayName": definition.title,
        "type": "runs" if is_report else "project-view",
        "spec": json.dumps(definition.spec),
    }
    view = execute_graphql(api, gql.upsert_view, variables)["upsertView"]["view"]
    if is_report:
        report = wr.Report(project=project, entity=entity, title=definition.title)
        report.id = view["id"]
        return str(report.url)
    workspace = ws.Workspace(project=project, entity=entity, name=definition.title)
    workspace._internal_name = view["name"]
    return str(workspace.url)
