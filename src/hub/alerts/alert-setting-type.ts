// replicationAlertSettings/defaultAlertSetting of a vault: who gets mails about what is critical there. Every vault has it.

import { Fault } from "../../contract/errors.ts";
import { childId, parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import type { JsonObject } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { alertSettingShape } from "./alert-shapes.ts";

const alertSettingType = "Microsoft.RecoveryServices/vaults/replicationAlertSettings";
/** The one name that Azure's clients know. */
const settingName = "defaultAlertSetting";

export function alertSettingResource({ resources }: Pick<HubServices, "resources">): ResourceType {
  const show = async (id: ResourceId): Promise<JsonObject | undefined> => {
    const stored = await resources.find(id);
    if (stored !== undefined) return presentSetting(stored.id, stored.properties);
    const isThere = id.name.toLowerCase() === settingName.toLowerCase() && (await resources.find(id.parentText)) !== undefined;
    // Until somebody sets it, nobody is told.
    return isThere ? presentSetting(childId(parseResourceId(id.parentText), "replicationAlertSettings", settingName), unset) : undefined;
  };
  return defineResource({
    type: alertSettingType,
    within: "parent",
    properties: alertSettingShape,
    onPut: async (call, { properties }) => {
      if (call.id.name.toLowerCase() === settingName.toLowerCase()) {
        const { resource } = await resources.save({ id: call.id, properties });
        return { kind: "answered", body: presentSetting(resource.id, resource.properties) };
      }
      throw new Fault("InputInvalid", `could not save the alert setting ${call.id.name}: a vault has one, named ${settingName}`, {
        evidence: { name: call.id.name, expected: settingName },
      });
    },
    onDelete: "refuse",
    source: {
      get: async ({ id }) => await show(id),
      list: async ({ id }) => {
        const setting = await show(childId(id, "replicationAlertSettings", settingName));
        return { items: setting === undefined ? [] : [setting], next: undefined };
      },
    },
  });
}

const unset = alertSettingShape.parse({});

/** Azure's setting has these three properties and no other. */
function presentSetting(id: ResourceId, properties: JsonObject): JsonObject {
  return { id: id.text, name: id.name, type: alertSettingType, properties };
}
