/** What the server says of itself: its model, the heads that it has, and how much it can remember. Another may be started
 *  in its place at any time, so it is asked before each reply. */

export class Facts {
  /** onChange(): it is another server, or the same one for the first time */
  constructor(server, onChange) {
    this.server = server;
    this.onChange = onChange;
    this.model = "";
    this.hasHeads = false;
    this.sets = {}; // of several heads, {name of the model with them: their name}
    this.context = null; // tokens
  }

  /** Raises what the server raises. */
  async ask() {
    const { model, heads, heads_by_name, n_ctx } = await this.server.get("props");
    const names = Object.keys(heads_by_name);
    const sets = names.length > 1 ? Object.fromEntries(names.map((name) => [`${model}:${name}`, name])) : {};
    const found = { model, hasHeads: Boolean(heads), sets, context: n_ctx };
    const isNew = Object.entries(found).some(([name, value]) => JSON.stringify(value) !== JSON.stringify(this[name]));
    Object.assign(this, found);
    if (isNew) this.onChange();
  }

  /** Whether its tokens are those of a reply by that model ("" = not known, as in older ones). */
  spells(model) {
    const plain = (name) => (name in this.sets ? this.model : name);
    return !model || !this.model || plain(model) === this.model;
  }
}

/** Of a model that was given as a file, the file's name. */
export const shortName = (model) => model.replace(/^.*[\\/]([^\\/]+\.gguf)/, "$1");
