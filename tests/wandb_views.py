"""What the W&B server on loopback answers about reports and workspaces.

The project is looked for, made where there is none, and a view is sent.
"""

import json
from typing import Any

ENTITY = {"id": "entity", "name": "tester"}


class Views:
    """A part of WandbServer: answers to GraphQL, one method per operation, under the client's name for it."""

    def __init__(self) -> None:
        self.projects: list[str] = []
        self.views: list[dict[str, Any]] = []  # reports and workspaces, as they came, their `spec` read

    def _GetDefaultEntity(self, _: dict) -> dict:
        return {"viewer": {"id": "user", "entity": ENTITY["name"]}}

    def _GetProjects(self, sent: dict) -> dict:
        more = {"createdAt": "2026-11-23T00:00:00Z", "isBenchmark": False, "user": None, "__typename": "Project"}
        known = {"id": "project", "entityName": sent["entity"], **more}
        page = {"endCursor": None, "hasNextPage": False, "__typename": "PageInfo"}
        return {"models": {"pageInfo": page, "edges": [{"node": known | {"name": name}} for name in self.projects]}}

    def _CreateProject(self, sent: dict) -> dict:
        self.projects.append(sent["input"]["name"])
        return {"upsertModel": {"inserted": True}}

    def _upsertView(self, sent: dict) -> dict:
        """A report or a workspace, by its type. The package's own Workspace.save has another name for it."""
        self.views.append(sent | {"spec": json.loads(sent["spec"])})
        project = {"id": "project", "name": sent["projectName"], "entityName": sent["entityName"]}
        told = {key: sent[key] for key in ("type", "name", "displayName", "description", "spec")}
        view = {"id": f"view{len(self.views)}", "project": project, **told, "updatedAt": "2026-11-23T00:00:00Z"}
        return {"upsertView": {"view": view, "inserted": True}}
