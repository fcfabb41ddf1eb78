/** Every route has a handler: this table does not compile otherwise. */
import type { RouteName } from '../api/routes.ts';
import * as admin from './admin.ts';
import { createCluster, removeCluster } from './clusters.ts';
import type { Handler } from './context.ts';
import { doctor } from './doctor.ts';
import { addJoinToken, join } from './join.ts';
import * as migrate from './migrate.ts';
import { nodeLog, serverLog } from './node-log.ts';
import * as reads from './reads.ts';
import * as spec from './spec.ts';
import * as tasks from './tasks.ts';
import { putTraffic, traffic } from './traffic.ts';

export const HANDLERS: { readonly [R in RouteName]: Handler<R> } = {
  version: admin.version,
  ca: admin.ca,
  clusters: reads.clusters,
  createCluster,
  show: reads.show,
  lsn: reads.lsn,
  lag: reads.lag,
  explain: reads.explain,
  history: reads.history,
  events: reads.events,
  getSpec: spec.getSpec,
  putSpec: spec.putSpec,
  meta: spec.meta,
  getSettings: spec.getSettings,
  postSettings: spec.postSettings,
  traffic,
  putTraffic,
  createTask: tasks.createTask,
  clusterTasks: tasks.clusterTasks,
  tasks: tasks.tasks,
  task: tasks.task,
  cancelTask: tasks.cancelTask,
  removeCluster,
  nodeLog,
  serverLog,
  storeStatus: admin.storeStatus,
  storeBackup: admin.storeBackup,
  storeRestore: admin.storeRestore,
  storeMigrate: migrate.storeMigrate,
  storeAccess: migrate.storeAccess,
  users: admin.users,
  addUser: admin.addUser,
  removeUser: admin.removeUser,
  addJoinToken,
  join,
  certs: admin.certs,
  renewCert: admin.renewCert,
  doctor,
};
