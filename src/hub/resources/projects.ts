// Migration projects: what an operator opens first; public access is off unless said otherwise.

import { z } from "zod";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import type { ResourceStore } from "../db/resources.ts";
import { projectType } from "../private-link/link-target.ts";
import { presentConnections, refuseWhileConnected } from "./connections.ts";

const projectShape = z.looseObject({
  publicNetworkAccess: z.enum(["Enabled", "Disabled"]).default("Disabled"),
});

export function projectTypes({ resources }: { readonly resources: ResourceStore }): readonly ResourceType[] {
  return [
    defineResource({
      type: projectType,
      within: "resourceGroup",
      properties: projectShape,
      canPatch: true,
      onDelete: async (_call, project) => {
        await refuseWhileConnected(resources, project);
        return { kind: "done" };
      },
      present: async (project) => ({
        ...project.properties,
        privateEndpointConnections: await presentConnections(resources, project),
      }),
    }),
  ];
}
