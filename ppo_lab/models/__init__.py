"""The model: actor and critic, their networks, and the action distributions."""
