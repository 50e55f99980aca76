// What the public door answers: management, login and download; and for resources with public access off, a refusal that says why.

import { Fault } from "../../contract/errors.ts";
import type { Resource, ResourceStore } from "../db/resources.ts";
import { answerFault, type HttpHandler } from "./door.ts";
import { isPublic, linkTargetOf, parseName } from "./link-target.ts";
import { membersOf, type LinkMember } from "./names.ts";

export interface PublicNames {
  readonly management: string;
  readonly login: string;
  readonly download: string;
}

export function publicNamesOf(domain: string): PublicNames {
  return { management: `management.${domain}`, login: `login.${domain}`, download: `download.${domain}` };
}

/** The handler of a name at the public door; undefined for names of nobody. */
export function createPublicDoor(dependencies: {
  readonly resources: ResourceStore;
  readonly domain: string;
  readonly own: ReadonlyMap<string, HttpHandler>;
  readonly faceOf: (target: Resource, member: string) => HttpHandler;
}): (name: string) => Promise<HttpHandler | undefined> {
  const { resources, domain, own, faceOf } = dependencies;
  return async (name) => {
    const mine = own.get(name);
    if (mine !== undefined || !name.endsWith(`.${domain}`)) return mine;
    const found = await findByName(resources, domain, name);
    if (found === undefined) return undefined;
    const { target, member } = found;
    return isPublic(target) ? faceOf(target, member.member) : refuse(target, name, member);
  };
}

/** A name says which resource it is of, so that one look by index finds it among any number. */
async function findByName(
  resources: ResourceStore,
  domain: string,
  name: string,
): Promise<{ readonly target: Resource; readonly member: LinkMember } | undefined> {
  const asked = parseName(name, domain);
  if (asked === undefined) return undefined;
  for (const target of await resources.having(asked)) {
    const linkTarget = linkTargetOf(target);
    const members = linkTarget === undefined ? [] : membersOf(linkTarget, domain);
    const member = members.find((candidate) => candidate.serverNames.includes(name));
    if (member !== undefined) return { target, member };
  }
  return undefined;
}

function refuse(target: Resource, name: string, member: LinkMember): HttpHandler {
  return (_request, response) => {
    const evidence = { name, resourceId: target.id.text, privateName: member.fqdn };
    const message = `could not serve ${name}: public network access is off`;
    answerFault(response, new Fault("PublicAccessDisabled", message, { evidence }));
  };
}
