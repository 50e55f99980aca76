// replicationAlertSettings/defaultAlertSetting of a vault: who gets mails about what is critical there. Every vault has it.

import { Fault } from "../../contract/errors.ts";
import { childId, parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import { presentResource, type JsonObject } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { alertSettingShape } from "./alert-shapes.ts";

const alertSettingType = "Microsoft.RecoveryServices/vaults/replicationAlertSettings";
/** The one name that Azure's clients know. */
const settingName = "defaultAlertSetting";

export function alertSettingResource({ resources }: Pick<HubServices, "resources">): ResourceType {
  const show = async (id: ResourceId): Promise<JsonObject | undefined> => {
    const stored = await resources.find(id);
    if (stored !== undefined) return presentResource(stored, alertSettingType, stored.properties);
    const isThere = id.name.toLowerCase() === settingName.toLowerCase() && (await resources.find(id.parentText)) !== undefined;
    return isThere ? presentUnset(id) : undefined;
  };
  return defineResource({
    type: alertSettingType,
    within: "parent",
    properties: alertSettingShape,
    onPut: async (call, { properties }) => {
      if (call.id.name.toLowerCase() === settingName.toLowerCase()) return { kind: "done", properties };
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

/** Until somebody sets it, nobody is told. */
function presentUnset(id: ResourceId): JsonObject {
  const named = parseResourceId(`${id.parentText}/replicationAlertSettings/${settingName}`);
  return { id: named.text, name: settingName, type: alertSettingType, properties: alertSettingShape.parse({}) };
}
