// Keeps one appliance running and starts it anew when its settings change; settings with which it cannot start are taken back.

import { asFault, type Fault } from "../contract/errors.ts";
import { Semaphore } from "../base/semaphore.ts";
import { parseApplianceConfig, saveConfig, type ApplianceConfig } from "./config/config.ts";
import { addressesOf, type Announcement } from "./control/way-book.ts";
import { startAppliance, type Appliance, type ApplianceOptions } from "./main.ts";
import { startSetupServer, type SetupServer } from "./setup/setup-server.ts";
import type { SetupFiles } from "./setup/setup-files.ts";

export interface ApplianceHostOptions extends ApplianceOptions {
  /** The set-up page's files; asked for when a browser first comes. */
  readonly setupFiles: () => Promise<SetupFiles>;
}

export async function startApplianceHost(options: ApplianceHostOptions): Promise<ApplianceHost> {
  const host = new ApplianceHost(options, await startAppliance(options));
  try {
    await host.openSetup();
    return host;
  } catch (error) {
    await host[Symbol.asyncDispose]();
    throw error;
  }
}

export class ApplianceHost implements AsyncDisposable {
  readonly #options: ApplianceHostOptions;
  readonly #turn = new Semaphore(1);
  #current: Appliance;
  #setup: SetupServer | undefined;
  #announcement: Announcement | undefined;

  constructor(options: ApplianceHostOptions, current: Appliance) {
    this.#options = options;
    this.#current = current;
  }

  /** Asked for anew at each use: a change of settings replaces it. */
  get current(): Appliance {
    return this.#current;
  }

  /** Of the last change, when it was one of addresses. */
  get announcement(): Announcement | undefined {
    return this.#announcement;
  }

  get stateFolder(): string {
    return this.#options.stateFolder;
  }

  /** Addresses and ports of the set-up page; none when the settings name no port for it. */
  get setupListening(): SetupServer["listening"] {
    return this.#setup?.listening ?? [];
  }

  async openSetup(): Promise<void> {
    if (this.#current.config.setupPort === undefined) return;
    this.#setup = await startSetupServer(this, this.#options);
    await this.#setup.listenOn(this.#current.config);
  }

  /**
   * One change at a time. Other addresses are announced to the agents before. What agents were sending stops for the moment of the start and goes on by itself.
   * Answers why the appliance could not start with the settings; then it runs with those before. Throws InputInvalid and changes nothing.
   */
  async changeConfig(change: (config: ApplianceConfig) => unknown): Promise<Fault | undefined> {
    return await this.#turn.run(async () => {
      const before = this.#current.config;
      const wanted = parseApplianceConfig(change(before));
      if (JSON.stringify(wanted) === JSON.stringify(before)) return undefined;
      const isMove = addressesOf(wanted).join() !== addressesOf(before).join();
      this.#announcement = isMove ? await this.#current.ways.announce(addressesOf(wanted)) : undefined;
      await this.#current[Symbol.asyncDispose]();
      try {
        this.#current = await startAppliance({ ...this.#options, config: wanted });
        await this.#setup?.listenOn(wanted);
        // Last: what a kill leaves behind are settings with which the appliance has run.
        await saveConfig(this.stateFolder, wanted);
        return undefined;
      } catch (error) {
        await this.#current[Symbol.asyncDispose]();
        this.#current = await startAppliance({ ...this.#options, config: before });
        if (isMove) await this.#current.ways.announce([]);
        return asFault(error, "start the appliance with the new settings");
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#setup?.[Symbol.asyncDispose]();
    await this.#turn.run(async () => await this.#current[Symbol.asyncDispose]());
  }
}
