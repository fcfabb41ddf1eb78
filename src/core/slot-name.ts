/** Name of the physical slot of a member. Node ids may hold `-`, slots may not: it becomes `_x2d_`. */
export function slotName(node: string): string {
  return `pgherd_${node.replaceAll('-', '_x2d_')}`;
}
