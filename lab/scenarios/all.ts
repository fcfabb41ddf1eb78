/** Every scenario, in the order in which the table lists them. */
import type { Scenario } from '../scenario.ts';
import { agentAndGuardKilled, agentAndGuardKilledQuorum } from './agent-and-guard-killed.ts';
import { agentFreeze } from './agent-freeze.ts';
import { agentKill } from './agent-kill.ts';
import { agentRestart } from './agent-restart.ts';
import { cascade, cascadeFailover } from './cascade.ts';
import { clusterRestart } from './cluster-restart.ts';
import { controllerLoss } from './controller-loss.ts';
import { crashInPlaceQuorum } from './crash-in-place.ts';
import {
  etcdMemberLoss,
  etcdStuckDisk,
  hostLossEtcd,
  hostLossEtcdAsync,
  hostLossEtcdLeader,
  serverLossEtcd,
  serverLossEtcdLeader,
  storeLost,
} from './etcd.ts';
import { diskFull, diskReadOnly, diskStuck, diskStuckQuorum } from './disks.ts';
import { failoverPool, failoverProxy } from './failover-proxy.ts';
import { fencingFails, hostLossFenced } from './fencing.ts';
import { freeze } from './freeze.ts';
import { hostKill } from './host-kill.ts';
import { hostLoss } from './host-loss.ts';
import { hostPause, vmPause } from './host-pause.ts';
import { nodeAdd, nodeAddAgentDies, nodeAddServerDies, nodeRemove } from './node-scale.ts';
import { oldPrimaryReturns } from './old-primary-returns.ts';
import { partitionPrimary } from './partition-primary.ts';
import { partitionStandby } from './partition-standby.ts';
import { postgresCrash } from './postgres-crash.ts';
import { postgresHang } from './postgres-hang.ts';
import { powerCutAsync, powerCutPrimaryFirst, powerCutPrimaryLast } from './power-cut.ts';
import { promoteFails, promoteFailsQuorum } from './promote-fails.ts';
import { proxyLoss } from './proxy-loss.ts';
import { readYourWrites } from './read-your-writes.ts';
import {
  agentRestartQuorum,
  hostKillQuorum,
  hostLossQuorum,
  hostPauseQuorum,
  partitionPrimaryQuorum,
  postgresCrashQuorum,
  postgresHangQuorum,
  storeLossQuorum,
  switchoverQuorum,
  vmPauseQuorum,
} from './quorum-mode.ts';
import { quorumK2 } from './quorum-k2.ts';
import { restoreOverFailover } from './restore-over-failover.ts';
import { rollingRestart, rollingRestartLower } from './rolling-restart.ts';
import { rollingServerDies } from './rolling-server-dies.ts';
import { rollingRestartProxy } from './rolling-restart-proxy.ts';
import { standbyLoss } from './standby-loss.ts';
import { serverRedeployed } from './server-redeployed.ts';
import { storeMigrate } from './store-migrate.ts';
import { storeLoss, storeLossSingle } from './store-loss.ts';
import { strict } from './strict.ts';
import { switchover } from './switchover.ts';
import { switchoverCandidateDies } from './switchover-candidate-dies.ts';
import { switchoverPool, switchoverProxy } from './switchover-proxy.ts';
import { syncStandbyLoss } from './sync-standby-loss.ts';
import { syncMode } from './sync-mode.ts';
import { twoFailures } from './two-failures.ts';
import { locationLost, locationLostManual, locationPreferred } from './two-locations.ts';
import { vipConflict, vipFailover, vipPartition } from './virtual-addresses.ts';
import { witnessFailover } from './witness.ts';

export const SCENARIOS: readonly Scenario[] = [
  postgresCrash,
  hostLoss,
  hostKill,
  postgresHang,
  switchover,
  partitionPrimary,
  agentKill,
  agentFreeze,
  agentAndGuardKilled,
  agentRestart,
  storeLoss,
  oldPrimaryReturns,
  partitionStandby,
  standbyLoss,
  controllerLoss,
  switchoverCandidateDies,
  promoteFails,
  twoFailures,
  freeze,
  locationLost,
  locationLostManual,
  locationPreferred,
  switchoverProxy,
  failoverProxy,
  switchoverPool,
  failoverPool,
  proxyLoss,
  rollingRestartProxy,
  readYourWrites,
  hostLossQuorum,
  hostKillQuorum,
  partitionPrimaryQuorum,
  postgresCrashQuorum,
  postgresHangQuorum,
  hostPause,
  hostPauseQuorum,
  vmPause,
  vmPauseQuorum,
  switchoverQuorum,
  agentRestartQuorum,
  storeLossQuorum,
  agentAndGuardKilledQuorum,
  crashInPlaceQuorum,
  promoteFailsQuorum,
  storeLossSingle,
  syncStandbyLoss,
  strict,
  syncMode,
  quorumK2,
  hostLossEtcd,
  hostLossEtcdLeader,
  hostLossEtcdAsync,
  serverLossEtcd,
  serverLossEtcdLeader,
  etcdMemberLoss,
  etcdStuckDisk,
  storeLost,
  rollingRestart,
  rollingRestartLower,
  rollingServerDies,
  clusterRestart,
  powerCutPrimaryFirst,
  powerCutPrimaryLast,
  powerCutAsync,
  diskFull,
  diskReadOnly,
  diskStuck,
  diskStuckQuorum,
  witnessFailover,
  hostLossFenced,
  fencingFails,
  vipFailover,
  vipPartition,
  vipConflict,
  nodeAdd,
  nodeAddServerDies,
  nodeAddAgentDies,
  nodeRemove,
  cascade,
  cascadeFailover,
  storeMigrate,
  serverRedeployed,
  restoreOverFailover,
];

export function findScenario(name: string): Scenario | null {
  return SCENARIOS.find((scenario) => scenario.name === name) ?? null;
}
