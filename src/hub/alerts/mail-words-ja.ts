// The words of alert mails in Japanese, with Japanese time beside UTC.

import { toTimestamp } from "../../base/clock.ts";
import type { HealthErrorCode } from "../health/health-codes.ts";
import type { Advice } from "./advice.ts";
import type { MailWords } from "./mail-words.ts";

const japanAheadMs = 9 * 3600_000;

const jobTitles: Readonly<Record<string, string>> = {
  EnableProtection: "レプリケーションの有効化",
  DisableProtection: "レプリケーションの停止",
  TestFailover: "移行テスト",
  TestFailoverCleanup: "移行テストの後片付け",
  UnplannedFailover: "移行",
  CommitFailover: "移行の確定",
  CancelFailover: "移行の取り消し",
  ApplyRecoveryPoint: "復旧ポイントの変更",
  RepairReplication: "再同期",
  ExportPoint: "復旧ポイントの書き出し",
  AddDisks: "ディスクの追加",
  RemoveDisks: "ディスクの除外",
  UpdatePolicy: "レプリケーション ポリシーの変更",
  UpdateMobilityService: "エージェントの更新",
  RefreshProvider: "サイト情報の再取得",
  RotateVaultKey: "コンテナーの鍵の更新",
  CountVaultSeals: "鍵ごとの使用量の集計",
  DestroyVaultKey: "古い鍵の破棄",
  ChangeLineLimits: "回線の帯域制限の変更",
  ProfileMachine: "書き込み量の測定",
  CheckNetwork: "ネットワーク経路の確認",
  MachinePower: "マシンの電源操作",
  MachineRemoval: "マシンの削除",
};

const jobStates: Readonly<Record<string, string>> = { Failed: "失敗", Cancelled: "取り消し", Succeeded: "成功" };

/** The same table as health-codes.ts: a code without its row here does not compile. */
const health: Readonly<Record<HealthErrorCode, Advice & { readonly summary: string }>> = {
  ApplianceSilent: {
    summary: "アプライアンスからの応答がありません",
    causes: ["アプライアンスが動いていない", "閉域網の回線が切れている"],
    action: "アプライアンスの状態と、コンテナーのプライベート エンドポイントまでの経路を確認してください",
  },
  CacheSpaceLow: {
    summary: "キャッシュの空き容量が少ないため、アプライアンスがエージェントの送信を遅くしています",
    causes: ["ストレージ アカウントへの回線が、変更の量より遅い", "キャッシュのディスクが小さすぎる、または他のファイルで埋まっている"],
    action:
      "アプライアンスのキャッシュのディスクに空きを作るか、容量を増やしてください。四分の一が空くと、エージェントは自動的に元の速さに戻ります",
  },
  AgentSilent: {
    summary: "マシンのエージェントからの応答がありません",
    causes: ["マシンの電源が切れている", "ゲストからアプライアンスのポート 443 と 9443 に届かない", "アプライアンス自体からの応答がない"],
    action: "ゲストのジャーナルを確認してください: journalctl -u watari-agent",
  },
  RecoveryPointOverdue: {
    summary: "ポリシーで決めた時間を過ぎても、新しい復旧ポイントができていません",
    causes: [
      "マシンの書き込みが回線の速さを超えている",
      "アプライアンスの一時領域がいっぱいになっている",
      "ストレージ アカウントが書き込みを拒んでいる",
    ],
    action: "マシンの未送信バイト数と、アプライアンスのエラーを確認してください",
  },
  ApplicationPointOverdue: {
    summary: "ポリシーで決めた時間を過ぎても、アプリケーション整合性のある復旧ポイントができていません",
    causes: [
      "ゲストにスクリプトがない、または拒否されている",
      "スクリプトが失敗する、または時間がかかりすぎる",
      "復旧ポイント自体が作れない",
    ],
    action: "マシンのイベント ApplicationConsistentPointMissed を確認してください。スクリプトの出力が入っています",
  },
  LandedMachineGone: {
    summary: "移行先のマシンがホストから消えています",
    causes: ["ハブを通さずにホスト上でマシンが削除された", "ホストの状態が失われた"],
    action: "テストの後片付けをするか、移行を取り消してからもう一度移行してください",
  },
  ApplianceCertificateEnding: {
    summary: "アプライアンスの証明書の期限が近づいています",
    causes: ["証明書の有効期間は、登録から一年です"],
    action: "新しい登録キーでアプライアンスを登録し直してください",
  },
  StorageRoleMissing: {
    summary: "コンテナーの ID に、ストレージ アカウントへの書き込み権限がありません",
    causes: ["役割が取り消された、またはまだ割り当てられていない"],
    action: "ストレージ アカウントで、コンテナーの ID に Storage Blob Data Contributor の役割を割り当ててください",
  },
  PrivateEndpointUnapproved: {
    summary: "プライベート エンドポイントの接続が承認されていません",
    causes: ["まだ承認されていない", "接続先の所有者が拒否または切断した"],
    action: "接続先で接続を承認するか、プライベート エンドポイントを削除してください",
  },
  JobStuck: {
    summary: "ジョブを処理しているハブがありません",
    causes: ["ジョブを実行できる唯一のハブが止まっている", "どのハブも同時実行数の上限に達している"],
    action: "そのホストのハブを起動するか、ジョブを取り消してください",
  },
  AlertNotDelivered: {
    summary: "このコンテナーのアラートを届けられません",
    causes: ["メール サーバーまたは Webhook の受信側が止まっている、または拒否している", "メール サーバーが設定されていない"],
    action: "watari alert deliveries で原因を確認して直し、watari alert test で試してください",
  },
};

export const japaneseWords: MailWords = {
  severities: { Critical: "重大", Warning: "警告", Info: "情報" },
  over: "解消",
  labels: {
    what: "何が起きたか",
    when: "発生時刻",
    about: "対象",
    job: "ジョブ",
    causes: "考えられる原因",
    action: "対応",
    resource: "リソース",
    vault: "コンテナー",
    event: "イベント",
  },
  subjectOfMany: (count, vault, codes) => `${vault} のアラート ${count} 件: ${codes}`,
  headOfMany: (count, vault) => `コンテナー ${vault} のアラート ${count} 件`,
  more: (count) => `… ほか ${count} 件。すべてはコンテナーの replicationEvents で確認できます`,
  leftOut: (count) =>
    `このほか ${count} 件は、待ち行列がいっぱいだったためこのメールに含まれていません。コンテナーのイベントで確認できます。`,
  foot: (vault) => [
    `コンテナー ${vault} のアラート設定にこのアドレスが登録されているため、お送りしています。`,
    "変更するには: watari alert set-email",
  ],
  testSubject: "テスト アラート",
  test: ["これはテストです。異常はありません。", "ハブからこのアドレスにメールが届きます。アラートはここに送られます。"],
  health: (code) => health[code],
  cleared: (summary) => `解消しました: ${summary}`,
  endedJob: ({ kind, title, name, state }) => `${jobTitles[kind] ?? title} (${name}): ${jobStates[state] ?? state}`,
  times: (atMs) => `${minute(atMs + japanAheadMs)} JST (${minute(atMs)} UTC)`,
};

function minute(atMs: number): string {
  return toTimestamp(atMs).slice(0, 19).replace("T", " ");
}
